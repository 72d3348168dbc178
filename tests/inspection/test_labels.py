"""Tokens in pictures: each visible, none able to act as markup or to disturb its neighbours."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway.inspection import PictureError
from cutaway.inspection.labels import labels, shorten, visible


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" the", "·the"),
        ("\n", "⏎"),
        ("\t\r", "⇥␍"),
        ("   ", "␣␣␣"),
        (" " * 12, "␣×12"),
        ("", "∅"),
        ("\x00\x7f", "␀␡"),
        ("\u202eevil", "\\u202eevil"),
        ("\u200b", "\\u200b"),
        ("\ud83d", "\\ud83d"),
        ("\u0301x", "◌\u0301x"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("\u00a0", "\\u00a0"),
        ("日本", "日本"),
        ("שלום", "שלום"),
        ("\U000f0000", "\\U000f0000"),
    ],
)
def test_what_a_reader_sees(token: str, shown: str) -> None:
    assert visible(token) == shown


@given(st.text(st.characters()))
def test_every_label_can_be_seen_and_written(token: str) -> None:
    shown = visible(token)
    assert shown
    shown.encode()  # no half surrogate pairs
    hidden = [c for c in shown if unicodedata.category(c)[0] in "CZ" and c != "\u200d"]
    assert not hidden


@given(st.text(min_size=1, max_size=60), st.integers(2, 20))
def test_shortened_labels_fit(text: str, limit: int) -> None:
    cut = shorten(text, limit)
    assert len(cut) <= limit
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]))


def test_a_composed_character_is_not_cut() -> None:
    assert shorten("abcde\u0301fgh", 6) == "abcd…"


def test_tokens_must_fit_the_axis() -> None:
    with pytest.raises(PictureError, match=r"3 query tokens do not fit weights of shape \(2, 4, 5\).*has 4"):
        labels(["a", "b", "c"], 4, "query", (2, 4, 5))
    with pytest.raises(PictureError, match="must be strings, not int"):
        labels([1, 2], 2, "key", (2, 2))
    with pytest.raises(PictureError, match="one string per token"):
        labels("ab", 2, "key", (2, 2))
