"""Recipes: what they refuse, and that TOML keeps them."""

import tomllib

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway.training import recipe, toml
from cutaway.training.errors import TrainingError
from cutaway.training.recipe import Recipe

texts = st.text(st.characters(codec="utf-8"))
numbers = st.floats(0, 1e300, allow_nan=False)
values = st.booleans() | st.integers(-(2**63), 2**63 - 1) | numbers | texts
sections = st.fixed_dictionaries(
    {},
    optional={
        "data": st.fixed_dictionaries({}, optional={"path": st.lists(texts), "column": st.none() | texts}),
        "model": st.dictionaries(texts.filter(lambda name: name not in MODEL), values | st.lists(values)),
        "optimizer": st.fixed_dictionaries({}, optional={"rate": numbers, "betas": st.tuples(*[st.floats(0, 1)] * 2)}),
        "loop": st.fixed_dictionaries({}, optional={"steps": st.integers(1, 10**9)}),
    },
)
MODEL = ("preset", "source", "norm", "position", "feedforward", "mixer", "embedding", "sizes")


@given(sections)
@hypothesis.settings(deadline=None)  # a busy machine
def test_a_recipe_survives_toml(given):
    made = recipe.read(given)
    assert recipe.read(tomllib.loads(toml.dump(made))) == made
    assert recipe.read(tomllib.loads(toml.dump(made, explained=True))) == made


def test_settings_of_a_shell_are_those_of_a_file():
    given = {"optimizer.betas": "0.8,0.9", "data.path": "a.txt,b.txt", "loop.batch": "none", "model.width": "64",
             "model.preset": "7", "model.tied": "true", "model.act": "relu", "optimizer.rate": "1"}  # fmt: skip
    made = toml.settings(given, Recipe())
    text = 'optimizer = {betas = [0.8, 0.9], rate = 1.0}\ndata.path = ["a.txt", "b.txt"]\n'
    text += 'model = {preset = "7", width = 64, tied = true, act = "relu"}'
    assert made == recipe.read(tomllib.loads(text))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("lop.steps", "1", "did you mean loop?"),
        ("loop.step", "1", "did you mean steps?"),
        ("optimizer.name", "adam", "did you mean adamw?"),
        ("loop.steps", "1.5", "a whole number is needed"),
        ("loop.steps", "0", "from 1"),
        ("loop.steps", "true", "a whole number is needed"),
        ("optimizer.rate", "nan", "a number from 0"),
        ("optimizer.rate", "fast", "a number is needed"),
        ("optimizer.betas", "0.9", "2 values"),
        ("data.split", "2", "from 0 to 0.9"),
        ("loop", "1", "no key ''"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name, text, says):
    with pytest.raises(TrainingError, match=says):
        toml.settings({name: text}, Recipe())


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    for text, says in (("a = ", "no recipe, which is TOML"), ("[loop]\nstps = 1", "did you mean steps")):
        (tmp_path / "r.toml").write_text(text)
        with pytest.raises(TrainingError, match=says) as error:
            toml.load(tmp_path / "r.toml")
        assert "r.toml" in str(error.value)
    with pytest.raises(TrainingError, match="cannot be read"):
        toml.load(tmp_path / "none.toml")


def test_differences_are_those_that_matter():
    a = toml.settings({"save.last": "3", "model.width": "8"}, Recipe())
    b = toml.settings({"save.last": "4", "model.width": "9"}, Recipe())
    assert recipe.differences(a, b) == ["model.width was 8 and is 9"]
