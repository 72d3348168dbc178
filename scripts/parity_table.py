"""Measures parity with the reference and writes the table into the README: `python scripts/parity_table.py`.

With `--check` it writes nothing and fails where a variant is off by more than the bound.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- parity:begin -->", "<!-- parity:end -->"
BOUND = 1e-5


def main() -> int:
    sys.path[:0] = [str(ROOT)]
    from tests.families.oracles import CASES, worst_error

    rows = [(case.family, case.variant, case.model, worst_error(case)) for case in CASES]
    lines = [
        "| family | variant | compared with | largest relative error of the output |",
        "| --- | --- | --- | ---: |",
        *(f"| {family} | {variant} | `{model}` | {error:.1e} |" for family, variant, model, error in rows),
    ]
    print("\n".join(lines))
    worst = max(error for *_, error in rows)
    if worst > BOUND:
        print(f"the worst error, {worst:.1e}, is above {BOUND:.0e}", file=sys.stderr)
        return 1
    if "--check" not in sys.argv[1:]:
        readme = ROOT / "README.md"
        before, rest = readme.read_text().split(BEGIN)
        after = rest.split(END)[1]
        readme.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
