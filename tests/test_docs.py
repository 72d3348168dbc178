"""Every Python example of the site and the README runs, page by page, in the order in which one reads."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
WEIGHTS = {"smollm2", "minilm"}


def examples(page: Path) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M))


@pytest.mark.parametrize("page", [p for p in PAGES if examples(p)], ids=lambda page: page.stem)
def test_examples_run(page, request, tmp_path, monkeypatch, capsys):
    code = examples(page)
    for name in WEIGHTS:
        if f'("{name}"' in code:
            request.getfixturevalue(name)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
