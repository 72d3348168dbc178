"""Every family has an objective of its own, and a head to learn by it."""

import pytest

import cutaway
from cutaway import families
from cutaway.training.data import characters
from cutaway.training.errors import TrainingError
from cutaway.training.objectives import head_for, named, own

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
