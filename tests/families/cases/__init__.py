"""One file a family: how it is held against what nobody here wrote.

Each has `CONFIGS` (the reference's configuration class and tiny sizes, by how its model classes begin), `CASES` (its
variants; the first is mutated, or the one that
`MUTATED` names for a mutant), `SHARPEN` (queries and keys are multiplied by this until attention is nearly decided)
and `MUTANTS` (slips that parity must catch). Where a family is called otherwise it has `extra(batch)`, and where its
reference is no model of `transformers`, `reference(case)`, `counterpart(theirs)` and `outputs(case, ours, theirs, batch)`.
"""
