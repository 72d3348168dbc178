"""Every Python example of the site and the README runs, page by page, in the order in which one reads."""

import importlib.util
import re
from pathlib import Path

import pytest

from cutaway import families

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
WEIGHTS = {"smollm2", "minilm"}


def code_of(markdown: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", markdown, re.S | re.M))


def examples(page: Path) -> str:
    return code_of(page.read_text(encoding="utf-8"))


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [p for p in PAGES if examples(p)], ids=lambda page: page.stem)
def test_examples_run(page, request, tmp_path, monkeypatch, capsys):
    code = examples(page)
    for name in WEIGHTS:
        if f'("{name}"' in code:
            request.getfixturevalue(name)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("family", families.FAMILIES)
def test_what_a_familys_page_says_to_type_runs(family, tmp_path, monkeypatch, capsys):
    code = code_of(script("family_pages").usage(family))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, family, "exec"), {"__name__": "__main__"})
    counted = int(capsys.readouterr().out)
    assert f"# {counted:,}\n" in code


def test_a_familys_page_is_whole():
    page = script("family_pages").page("mamba")
    for said in (
        "# Mamba\n",
        "no feed-forward",
        "Gu and Dao 2023",
        "<svg",
        "129,135,360 | the same",
        "V·D + D + L·(",
        "O(T·I",
    ):
        assert said in page
