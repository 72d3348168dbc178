"""Static pictures and pages as files: what is written, what is escaped, what is left alone."""

import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch

from cutaway.inspection import Picture, PictureError, heads, heatmap, next_tokens, positions
from cutaway.inspection.encodings import by_distance, cosines, decay
from cutaway.inspection.palette import diverging, sequential
from cutaway.parts.context import Context
from cutaway.parts.relative import ALiBi
from cutaway.parts.rotary import Rotary

NASTY = [
    "</script><img src=x onerror=alert(1)>",
    "$x_1^{2}$",
    "$\\frac",
    "\"&'<b>",
    "\n",
    "\x00\x1b",
    "日本語",
    "👩\u200d💻😀",
    "שלום",
    "\u0e01\u0e33",
    "a\u0301\u0301",
    "long" * 50,
    "same",
    "same",
    "\ud800",
    "\u202e",
]
SIZE = len(NASTY)


def weights(*shape: int) -> np.ndarray:
    return torch.randn(shape).mul(3).softmax(-1).numpy()


def pictures() -> dict[str, Picture]:
    many = weights(3, 4, SIZE, SIZE)
    return {
        "sheet": heatmap(many, NASTY, title="$sheet_1"),
        "large": heatmap(many, NASTY, layer=1, head=2),
        "cross": heatmap(weights(2, 2, 3, SIZE), q_tokens=["a", "b", "c"], k_tokens=NASTY, kind="cross"),
        "heads": heads(many, NASTY, layer=1),
        "next": next_tokens(torch.randn(SIZE), NASTY),
        "table": positions(np.random.default_rng(0).normal(size=(20, 8))),
        "rotary": positions(np.outer(np.arange(20), [1.0, 0.1]), kind="rotary"),
        "bias": positions(np.random.default_rng(0).normal(size=(5, 6, 6)), title="$bias$"),
    }


@pytest.mark.parametrize("name", list(pictures()))
def test_every_picture_saves_in_every_form_without_a_warning(name: str, tmp_path: Path, caplog) -> None:
    picture = pictures()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = picture.save(tmp_path / "x.png").read_bytes()
        dark = picture.save(tmp_path / "dark.PNG", theme="dark").read_bytes()
        svg = picture.save(str(tmp_path / "x.svg")).read_text(encoding="utf-8")
        page = picture.save(tmp_path / "x.html").read_text(encoding="utf-8")
    assert not caplog.records
    assert png.startswith(b"\x89PNG")
    assert png != dark
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert page.startswith("<!doctype html>")
    assert page.count("</script") == 1  # a token cannot end the script
    assert "<img" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


def test_dollars_and_underscores_are_literal() -> None:
    picture = pictures()["large"]
    picture.figure.canvas.draw()
    shown = picture.figure.axes[0].get_yticklabels()
    assert not any(label.get_parse_math() for label in shown)
    assert shown[1].get_text() == "$x_1^{2}$"


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    array = weights(2, 2, 5, 5)
    for suffix in ("png", "svg", "html"):
        one, two = (heatmap(array).save(tmp_path / f"{i}.{suffix}").read_bytes() for i in range(2))
        assert one == two


@pytest.mark.parametrize("name", ["x.pdf", "x", "x.htm"])
def test_other_suffixes_are_one_clear_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"end the name in \.png, \.svg or \.html"):
        heatmap(weights(3, 3)).save(tmp_path / name)
    with pytest.raises(PictureError, match="no folder"):
        heatmap(weights(3, 3)).save(tmp_path / "none" / "x.png")
    with pytest.raises(PictureError, match="no theme"):
        heatmap(weights(3, 3)).save(tmp_path / "x.png", theme="pink")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_settings_of_the_user_neither_change_nor_matter(tmp_path: Path) -> None:
    array = weights(3, 3)
    plain = heatmap(array, ["$a", "b_", "^"]).save(tmp_path / "a.png").read_bytes()
    with matplotlib.rc_context({"text.usetex": True, "figure.dpi": 33, "savefig.transparent": True, "font.size": 30}):
        before = dict(matplotlib.rcParams)
        own = heatmap(array, ["$a", "b_", "^"]).save(tmp_path / "b.png").read_bytes()
        assert dict(matplotlib.rcParams) == before
    assert own == plain


def test_pyplot_stays_out_and_import_stays_light() -> None:
    code = (
        "import sys, numpy as np\n"
        "from cutaway.inspection import heatmap\n"
        "assert not {'torch', 'matplotlib', 'seaborn', 'plotly'} & set(sys.modules)\n"
        "heatmap(np.eye(3)).figure\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_in_one_notebook_do_not_collide() -> None:
    picture = heatmap(weights(3, 3))
    ids = {picture._repr_html_().split('id="')[1].split('"')[0] for _ in range(20)}
    assert len(ids) == 20


def _luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_grow_evenly_in_lightness(theme) -> None:
    lightness = np.array([116 * _luminance(colour) ** (1 / 3) - 16 for colour in sequential(theme)])  # CIE L*
    steps = np.diff(lightness) * (-1 if theme == "light" else 1)
    assert (steps > 0).all()
    assert steps.max() < 2.2 * steps.min()
    sides = np.array([_luminance(colour) for colour in diverging(theme)])
    np.testing.assert_allclose(sides, sides[::-1], atol=0.09)


def test_likeness_against_torch() -> None:
    table = torch.randn(6, 5)
    expected = torch.nn.functional.cosine_similarity(table[:, None], table[None], dim=-1)
    np.testing.assert_allclose(cosines(table.numpy()), expected.numpy(), atol=1e-6)


def test_decay_is_what_rotary_does_to_equal_vectors() -> None:
    rotary = Rotary(16)
    pos = torch.arange(40)[None]
    turned = rotary(torch.ones(1, 1, 40, 16), Context(pos))[0, 0]  # (T, E)
    scores = turned @ turned[0] / 16
    angles = (pos[0][:, None] * rotary.frequencies).numpy()
    np.testing.assert_allclose(decay(angles), scores.numpy(), atol=1e-5)


def test_bias_by_distance_finds_the_slopes() -> None:
    alibi, pos = ALiBi(4), torch.arange(9)[None]
    distances, lines = by_distance(alibi.pattern(pos, pos)[0].numpy())
    expected = -alibi.slopes().numpy()[:, None] * np.abs(distances)
    np.testing.assert_allclose(lines, expected, atol=1e-6)
