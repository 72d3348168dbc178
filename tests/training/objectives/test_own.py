"""Every family has an objective of its own, and a head to learn by it."""

import pytest
import torch

import cutaway
from cutaway import families
from cutaway.training import recipe
from cutaway.training.data import characters
from cutaway.training.errors import TrainingError
from cutaway.training.objectives import head_for, named, own
from cutaway.training.setup import prepare

# as the papers train them
EXPECTED = {
    "t5": "Spans", "bart": "Denoising", "electra": "Replaced", "xlnet": "Permutation", "transformer": "Translation",
    "synthesizer": "Translation", "seq2seq": "Translation", "bert": "Masked", "roberta": "Masked", "distilbert": "Masked",
    "albert": "Masked", "modernbert": "Masked", "deberta": "Masked", "deberta_v2": "Masked", "linformer": "Masked",
    "longformer": "Masked", "bigbird": "Masked",
}  # fmt: skip
TOKENIZER = characters(["abc"])


@pytest.mark.parametrize("preset", [p for name in families.FAMILIES for p in families.get(name).PRESETS])
def test_every_preset_can_be_built_for_its_own_objective(preset):
    family = families.by_preset(preset)
    sizes = families.get(family).PRESETS[preset]
    head = head_for("auto", family, sizes)
    net = cutaway.build(preset, device="meta", layers=1, **({} if head is None else {"head": head}))
    made = named("auto", net, family, net.sizes, TOKENIZER, mask=2)
    flexible = {"performer", "linear_transformer", "reformer", "xlnet", "transformer", "synthesizer"}
    if family in flexible:
        both = not getattr(sizes, "causal", True)
        other = EXPECTED.get(family, "Masked") if both or getattr(sizes, "encoder", False) else "Causal"
        assert type(made).__name__ == other
    else:
        assert type(made).__name__ == EXPECTED.get(family, "Causal")


def test_a_head_that_does_not_go_is_named():
    net = cutaway.build("bert", device="meta", layers=1)
    with pytest.raises(TrainingError, match="head='masked-lm'"):
        named("auto", net, "bert", net.sizes, TOKENIZER, mask=2)
    assert own("bert", net.sizes) == "masked"


@pytest.mark.parametrize(
    ("preset", "sizes"),
    [
        ("bert-tiny", {}), ("t5-small", {"head_width": 16}), ("bart-base", {}),
        ("electra-small-generator", {"table_width": 16}),
        ("xlnet-base-cased", {}), ("performer-base", {"causal": False}), ("gpt2", {}),
    ],
)  # fmt: skip
def test_a_run_needs_no_more_than_a_text(preset, sizes, tmp_path):
    """Ids for masks and marks, room for the end of text, and the head come with the objective."""
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 50)
    of = next(iter(families.get(families.by_preset(preset)).PRESETS.values()))
    tiny = {"width": 32, "layers": 1, "heads": 2, "hidden": 48, "dropout": 0.0, **sizes}
    given = recipe.Recipe(
        data=recipe.Data(path=(str(tmp_path / "text.txt"),), tokenizer="char", length=32),
        model=recipe.Model(preset=preset, sizes={name: size for name, size in tiny.items() if hasattr(of, name)}),
        loop=recipe.Loop(steps=2, rows=4),
    )
    made = prepare(given)
    assert made.trainer.step(1).loss > 0
    assert made.valid is not None
    assert made.trainer.evaluate(made.valid) > 0


def test_parameters_that_a_generator_shares_count_once(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 50)
    sizes = {"table_width": 16, "width": 32, "layers": 1, "heads": 4, "hidden": 48, "dropout": 0.0}
    given = recipe.Recipe(
        data=recipe.Data(path=(str(tmp_path / "text.txt"),), tokenizer="char", length=32),
        model=recipe.Model(preset="electra-small-discriminator", sizes=sizes),
        loop=recipe.Loop(steps=2, rows=4),
    )
    trainer = prepare(given).trainer
    model, objective = trainer.model, trainer.objective
    parameters = {id(p): p for part in (model, *objective.modules.values()) for p in part.parameters()}
    assert len(trainer.trained) == len(parameters)
    loss, _ = trainer._loss(trainer.data.batch(0), 1, 0)
    gradients = torch.autograd.grad(loss.total / loss.count, list(parameters.values()))
    norm = torch.stack([g.norm() for g in gradients]).norm()
    assert trainer.step(1).norm == pytest.approx(float(norm), rel=1e-5)
