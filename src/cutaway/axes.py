"""The one axis vocabulary. Every comment, docstring, annotation and error message spells axes this way.

| axis | what it counts                | axis | what it counts                       |
|------|-------------------------------|------|--------------------------------------|
| `B`  | sequences in a batch          | `D`  | model width                          |
| `T`  | tokens in a sequence          | `F`  | hidden width of the feed-forward     |
| `Q`  | queries (tokens that look)    | `L`  | layers                               |
| `K`  | keys (tokens looked at)       | `V`  | vocabulary                           |
| `H`  | query heads                   | `N`  | state size of a recurrence           |
| `G`  | key/value heads               | `S`  | source tokens, or slots of a cache   |
| `E`  | width of one head             |      |                                      |

Positions are absolute, start at 0, and are -1 on padding.
"""

from jaxtyping import Bool, Float, Int, Num

__all__ = ["Bool", "Float", "Int", "Num"]
