"""Stop strings: found across tokens, never shown in part, whatever way the text is cut."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.generation.models import Letters, Scripted

from cutaway.generation import generate, stream
from cutaway.generation.answer import StopText


def by_definition(text: str, stops: list[str]) -> tuple[str, bool]:
    """Read character by character; the first stop string to be complete ends the text where it begins."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(
    text=st.text("abc", max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=5), max_size=3),
    cuts=st.lists(st.integers(0, 30)),
)
@example(text="aabab", stops=["abab"], cuts=[1, 3, 4])
@example(text="abcd", stops=["abcd", "bc"], cuts=[])
def test_any_cut_gives_the_definition(text, stops, cuts):
    expected, stopped = by_definition(text, stops)
    places = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    running, shown, done = StopText(stops), "", False
    for start, end in itertools.pairwise(places):
        more, done = running.push(text[start:end])
        shown += more
        assert expected.startswith(shown)  # nothing shown is ever taken back
        if done:
            break
    assert done == stopped
    assert shown + ("" if done else running.flush()) == expected


def test_nothing_is_held_back_without_need():
    running = StopText(["</s>"])
    assert running.push("hello <") == ("hello ", False)
    assert running.push("b") == ("<b", False)
    assert running.push("</") == ("", False)
    assert running.push("s") == ("", False)
    assert running.push(">more") == ("", True)


@pytest.mark.parametrize(
    ("said", "stop", "text", "pieces", "finish"),
    [
        ([120, 200, 201, 100], "bb", "xa", ["x", "a"], "stop"),  # x ab bc d: "bb" spans two tokens
        ([120, 200, 201, 100], ["zz", "d"], "xabbc", ["x", "ab", "bc"], "stop"),
        ([120, 200, 2], "abc", "xab", ["x", "ab"], "eos"),  # held back, then it was the end
        ([120, 200, 201], "abbcd", "xabbc", ["x", "abbc"], "length"),
        ([200, 2], "ab", "", [], "stop"),
        ([120, 2], "x", "", [], "stop"),
    ],
)
def test_stop_strings_in_generation(said, stop, text, pieces, finish):
    model, most = Scripted({104: said}), len(said)
    found = generate(model, "h", tokenizer=Letters(), stop=stop, max_new_tokens=most)
    assert (found.texts, found.finish) == ([text], [finish])
    assert found.ids[0] == said[: len(found.ids[0])]
    running = stream(model, "h", tokenizer=Letters(), stop=stop, max_new_tokens=most)
    assert list(running) == pieces
    assert running.result.texts == [text]
    assert running.result.ids == found.ids


def test_rows_of_a_batch_stop_on_their_own():
    model = Scripted({104: [120, 200, 201], 105: [121, 121, 200], 106: [201]})
    found = generate(model, ["h", "i", "j"], tokenizer=Letters(), stop="ab", max_new_tokens=4)
    assert found.texts == ["x", "yy", "bc\0\0\0"]
    assert found.finish == ["stop", "stop", "length"]
