"""Measures what is proven of every family, and writes the tables of the README and of docs/correctness.md.

    python scripts/parity_table.py            measures, prints and writes
    python scripts/parity_table.py --check    measures and prints; fails where something is not as it must be

Each mutant is put in and compared anew, each round trip goes over files, each preset is composed and counted.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
if TYPE_CHECKING:
    from tests.families.proof import Proof

BEGIN, END = "<!-- {name}:begin -->", "<!-- {name}:end -->"


def main() -> int:
    import torch
    from tests.families.proof import prove

    from cutaway import families

    torch.set_num_threads(1)  # tiny models
    found = []
    for family in families.FAMILIES:
        found.append(prove(family))
        print(_row(found[-1]), flush=True)
    wrong = [line for proof in found for line in complaints(proof)]
    print("\n".join(wrong) or "everything is as it must be", file=sys.stderr)
    if "--check" not in sys.argv[1:]:
        _write(ROOT / "README.md", "proven", by_family(found))
        _write(ROOT / "docs" / "correctness.md", "parity", by_variant(found))
    return bool(wrong)


def by_family(found: "list[Proof]") -> list[str]:
    """The README's table."""
    columns = [
        "family",
        "equal to",
        "variants",
        "worst error",
        "mutants caught",
        "there and back",
        "presets as published",
    ]
    head = ["", *columns, "cached = uncached", ""]
    return [" | ".join(head).strip(), "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |", *map(_row, found)]


def _row(proof: "Proof") -> str:
    from tests.families.proof import PROOF

    besides = PROOF.get(proof.family)
    said = ["`transformers`" if proof.by_reference else "its equations in plain words" if proof.errors else ""]
    said += [f"{besides[0]} ([test]({besides[1]}))"] if besides else []
    count = len(proof.errors)
    cells = [
        proof.family,
        "; ".join(filter(None, said)),
        f"{count or '–'}",
        f"{max(proof.errors.values()):.0e}" if count else "–",
        f"{proof.caught} of {len(proof.mutants)}" if proof.mutants else "–",
        f"{proof.same_bits} of {proof.by_reference}"
        if proof.by_reference
        else "own layout"
        if proof.own_layout
        else "no",
        f"{proof.published} of {proof.presets}" if proof.published else "–",
        proof.cached if isinstance(proof.cached, str) else "–" if proof.cached is None else f"{proof.cached:.0e}",
    ]
    return "| " + " | ".join(cells) + " |"


def by_variant(found: "list[Proof]") -> list[str]:
    """The table of docs/correctness.md."""
    lines = [
        "| family | variant | compared with | largest relative error of the output |",
        "| --- | --- | --- | ---: |",
    ]
    for proof in found:
        for variant, error in proof.errors.items():
            lines.append(f"| {proof.family} | {variant} | `{proof.against[variant]}` | {error:.1e} |")
    return lines


def complaints(proof: "Proof") -> list[str]:
    """What is not as it must be."""
    from tests.families.proof import BOUND

    said = [f"{variant} is off by {error:.1e}" for variant, error in proof.errors.items() if not error <= BOUND]
    said += [f"the mutant {name!r} is not caught" for name, caught in proof.mutants.items() if not caught]
    said += [] if proof.own_layout else ["our own layout does not give the same bits back"]
    if isinstance(proof.cached, float) and not proof.cached <= BOUND:
        said.append(f"cached is not uncached: {proof.cached:.1e}")
    return [f"{proof.family}: {line}" for line in said]


def _write(page: Path, name: str, lines: list[str]) -> None:
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{rest.split(end)[1]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
