"""The pages in a real browser, from a file, without a network."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cutaway
from cutaway.inspection import Picture, heads, heatmap, inspect, next_tokens, positions
from cutaway.inspection.codec import pack_patterns
from cutaway.inspection.page import fragment
from cutaway.inspection.patterns import pattern

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open pages with")
QUIET = ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
         "disable-component-update", "disable-sync")  # fmt: skip
EVIL = "</script><img src=x onerror=\"document.title='broken out'\">"
TOKENS = ["<s>", " The", " $x_1$", EVIL, "\n", "日本", "שלום", " The", "end"]


def causal(*shape: int) -> torch.Tensor:
    above = torch.ones(shape[-1], shape[-1]).triu(1).bool()
    return torch.randn(shape).mul(2).masked_fill(above, -torch.inf).softmax(-1)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[f"--{flag}" for flag in QUIET])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, tmp_path: Path) -> Iterator:
    """Opens pages; at the end none may have complained or asked for anything but itself."""
    trouble, contexts = [], []

    def opened(source: Picture | str, width: int = 1200, scheme: str = "light"):
        path = tmp_path / f"{len(contexts)}.html"
        path.write_text(source if isinstance(source, str) else source.html(), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: trouble.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        page.wait_for_selector("[data-ready]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not trouble


def test_tokens_stay_tokens(visit) -> None:
    page = visit(heads(causal(2, 3, 9, 9), TOKENS, title=EVIL))
    assert page.title() == EVIL
    assert page.locator("img").count() == 0
    assert page.locator("h1").inner_text() == EVIL
    node = page.locator('.token[data-side="k"][data-index="3"]')
    assert node.locator("title").text_content() == f"{EVIL.replace(' ', '·')} (3)"
    assert len(node.locator("text").text_content()) < 25


def test_pointing_at_a_token_isolates_it_and_names_what_it_looks_at(visit) -> None:
    weights = causal(2, 3, 9, 9)
    page = visit(heads(weights, TOKENS))
    everything = page.locator("svg.heads path").count()
    page.locator('.token[data-side="q"][data-index="5"]').hover()
    drawn = page.locator("svg.heads path").evaluate_all("paths => paths.map(p => p.getAttribute('d')).join('')")
    assert drawn.count("M") == int((weights[0, :, 5] >= 0.01).sum())
    assert page.locator("svg.heads path").count() <= everything
    head, key = divmod(int(weights[0, :, 5].argmax()), 9)
    assert f"({key})" in page.locator(".readout").inner_text()
    assert f"in head {head}" in page.locator(".readout").inner_text()
    page.mouse.move(0, 0)
    assert "Point at a token" in page.locator(".readout").inner_text()


def test_head_view_by_keyboard(visit) -> None:
    page = visit(heads(causal(2, 3, 9, 9), TOKENS))
    page.locator(".token").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    held = page.locator('.token[aria-pressed="true"]')
    assert held.get_attribute("aria-label") == "key 2: ·$x_1$"
    page.keyboard.press("Escape")
    assert held.count() == 0


def test_chips_hide_heads_and_layers_change(visit) -> None:
    weights = causal(2, 3, 9, 9)
    page = visit(heads(weights, TOKENS))
    colours = "paths => new Set(paths.map(p => p.getAttribute('stroke'))).size"
    assert page.locator("svg.heads path").evaluate_all(colours) == 3
    page.get_by_role("button", name="Head 1", exact=True).click()
    assert page.locator("svg.heads path").evaluate_all(colours) == 2
    before = page.locator("svg.heads path").first.get_attribute("d")
    page.get_by_label("Layer", exact=True).select_option("1")
    assert page.locator("svg.heads path").first.get_attribute("d") != before
    lines = "paths => paths.map(p => p.getAttribute('d')).join('').split('M').length - 1"
    all_lines = page.locator("svg.heads path").evaluate_all(lines)
    page.get_by_role("button", name="leave out the first token").click()
    sinks = int((weights[1, [0, 2], :, 0] >= 0.01).sum())
    assert page.locator("svg.heads path").evaluate_all(lines) == all_lines - sinks
    page.get_by_role("button", name="none").click()
    assert page.locator("svg.heads path").count() == 0


def test_heatmap_reads_its_weights_by_keyboard_and_pointer(visit) -> None:
    weights = causal(3, 4, 9, 9)
    page = visit(heatmap(weights, TOKENS))
    page.locator("canvas.pick").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert [page.get_by_label(name, exact=True).input_value() for name in ("Layer", "Head")] == ["1", "2"]
    page.locator("canvas.matrix").focus()
    for key in ("ArrowDown", *["ArrowDown"] * 6, *["ArrowRight"] * 2):
        page.keyboard.press(key)
    assert "(6) looks at" in page.locator(".readout").inner_text()
    shown = float(page.locator(".readout strong").inner_text().lstrip("<"))
    assert shown == pytest.approx(weights[1, 2, 6, 2].item(), abs=0.006)
    box = page.locator("canvas.matrix").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 5)
    assert "“end” (8) looks at “end” (8)" in page.locator(".readout").inner_text()


def test_the_sheet_answers_clicks_and_the_mean_is_the_mean(visit) -> None:
    weights = causal(3, 4, 9, 9)
    page = visit(heatmap(weights, TOKENS))
    box = page.locator("canvas.pick").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 10, box["y"] + box["height"] - 10)
    assert [page.get_by_label(name, exact=True).input_value() for name in ("Layer", "Head")] == ["2", "3"]
    page.get_by_label("Head", exact=True).select_option("-1")
    page.wait_for_timeout(50)
    page.locator("canvas.matrix").focus()
    for key in (*["ArrowDown"] * 5, *["ArrowRight"] * 1):
        page.keyboard.press(key)
    shown = float(page.locator(".readout strong").inner_text().lstrip("<"))
    assert shown == pytest.approx(weights[2, :, 4, 1].mean().item(), abs=0.006)


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits_the_screen(visit, width: int, scheme: str) -> None:
    kinds = [pattern(causal(2, 4, 9, 9), TOKENS), pattern(causal(2, 4, 9, 9), TOKENS, kind="encoder")]
    content = {
        "attention": pack_patterns(kinds),
        "next": next_tokens(torch.randn(30)).content()["next"],
        "positions": positions(torch.randn(4, 8, 8)).content()["positions"],
        "view": "heatmap",
    }
    page = visit(Picture("All", lambda theme: None, lambda: content), width, scheme)  # type: ignore[arg-type, return-value]
    for tab in ("Heatmaps", "Head view", "Next token", "Positions"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(120)
        assert page.get_by_role("tab", name=tab).get_attribute("aria-selected") == "true"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("tab", name="Positions").press("ArrowRight")
    assert page.get_by_role("tab", name="Heatmaps").get_attribute("aria-selected") == "true"
    page.get_by_role("radio", name="Encoder self-attention").click()
    assert page.get_by_role("radio", name="Encoder self-attention").get_attribute("aria-checked") == "true"
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    page.get_by_role("button", name="Light colours" if scheme == "dark" else "Dark colours").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper


def test_several_in_one_notebook_live_side_by_side(visit) -> None:
    one, two = heatmap(causal(2, 2, 9, 9), TOKENS), heads(causal(2, 2, 5, 5), TOKENS[:5])
    cells = "".join(picture._repr_html_() for picture in (one, two, one))
    page = visit(f'<!doctype html><meta charset="utf-8"><body style="font: 40px serif">{cells}<p id="after">after</p>')
    page.wait_for_function("document.querySelectorAll('[data-ready]').length === 3")
    assert page.locator("canvas.matrix").count() == 2
    assert page.locator("svg.heads").count() == 1
    assert page.evaluate("getComputedStyle(document.getElementById('after')).fontSize") == "40px"
    assert page.evaluate("typeof App + typeof mount") == "undefinedundefined"  # nothing leaks out of a cell


def test_a_dark_notebook_is_recognised(visit) -> None:
    cell = fragment("x", heatmap(causal(3, 3)).content())
    page = visit(f'<!doctype html><meta charset="utf-8"><body data-jp-theme-light="false">{cell}')
    assert page.locator(".theme").get_attribute("aria-label") == "Light colours"


@pytest.mark.slow
def test_a_thousand_tokens_stay_usable(visit) -> None:
    page = visit(heatmap(causal(1, 4, 1024, 1024), layer=0))
    page.locator("canvas.matrix").hover()
    assert "looks at" in page.locator(".readout").inner_text()
    page.get_by_role("tab", name="Head view").click()
    notice = page.locator(".notice")
    notice.wait_for()
    assert "Tokens 0 to 99 of 1024" in notice.inner_text()
    page.get_by_role("button", name="later").click()
    assert "Tokens 100 to 199 of 1024" in page.locator(".notice").inner_text()
    page = visit(heatmap(causal(4, 8, 1024, 1024)))
    assert "largest weight of 2 × 2 tokens" in page.locator(".notice").inner_text()


def test_negative_patterns_are_read_and_drawn_with_their_sign(visit) -> None:
    seen = inspect(cutaway.build("s4-wikitext", vocab=60, width=32, layers=2, seed=0), ids=[5, 6, 7, 8])
    page = visit(seen.picture)
    assert "Blue is negative" in page.locator(".sentence").inner_text()
    assert page.get_by_label("Group", exact=True).is_visible()
    exact = seen.attention(0, 0)
    q, k = next((q, k) for q in range(4) for k in range(4) if exact[q, k] < -0.01)
    page.locator("canvas.matrix").focus()
    for key, times in (("ArrowDown", q + 1), ("ArrowRight", k)):
        for _ in range(times):
            page.keyboard.press(key)
    read = page.locator(".readout strong").inner_text()
    assert float(read) == pytest.approx(exact[q, k], abs=0.02)
    for scale in (1, 2):
        page.get_by_label("Colour scale").select_option(index=scale)
    page.get_by_role("tab", name="Head view").click()
    page.wait_for_selector('path[stroke-dasharray="5 4"]')
