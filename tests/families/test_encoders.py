"""What the encoders after BERT have of their own: sentence vectors, poolers, shared blocks, positions, refusals."""

import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from tests.checkpoints.tiny import MODELS, reference, saved
from tests.families.oracles import FAMILIES, batches, counterpart, error
from tests.families.oracles import reference as sharp

import cutaway
from cutaway import families
from cutaway.attention import recording
from cutaway.errors import CapacityError, CheckpointError, ConfigError
from cutaway.lab import card

POOLED = ("roberta", "distilbert", "electra", "albert", "modernbert")


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize(("mode", "unit"), [("mean", True), ("cls", False)])
def test_sentences(name: str, mode: str, unit: bool, tmp_path: Path) -> None:
    """A folder of sentence-transformers gives its vectors, and is written so that it does so again."""
    theirs = saved(name, tmp_path)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if unit else [])]
    modules = [{"idx": i, "path": "", "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    pooling = {"pooling_mode_mean_tokens": mode == "mean", "pooling_mode_cls_token": mode == "cls"}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    loaded = cutaway.load(tmp_path)
    assert (loaded.sizes.head, loaded.sizes.normalise) == (mode, unit)
    for batch in batches():
        with torch.no_grad():
            found = loaded.model(batch.ids, batch.padding)
            alone = [
                theirs(row[real][None]).last_hidden_state[0] for row, real in zip(batch.ids, batch.real, strict=True)
            ]
        expected = torch.stack([x.mean(0) if mode == "mean" else x[0] for x in alone])
        expected = torch.nn.functional.normalize(expected, dim=-1) if unit else expected
        assert error(found, expected) < 1e-5
    cutaway.save(loaded, tmp_path / "again")
    again = cutaway.load(tmp_path / "again")
    assert (again.sizes.head, again.sizes.normalise) == (mode, unit)
    ids = torch.arange(3, 14)[None]
    with torch.no_grad():
        assert torch.equal(again.model(ids), loaded.model(ids))


@pytest.mark.parametrize("name", ["roberta", "albert"])
def test_pooler(name: str) -> None:
    theirs = reference(name)
    ours = counterpart(theirs)
    ids = next(batches()).ids
    with torch.no_grad():
        assert error(ours.pooled(ids), theirs(ids).pooler_output) < 1e-5


@pytest.mark.parametrize("name", [name for name in MODELS if name.partition("-")[0] in POOLED])
def test_another_head(name: str, tmp_path: Path) -> None:
    """Any checkpoint's body takes any head; nothing of the old one is in the way."""
    saved(name, tmp_path)
    states = cutaway.load(tmp_path, head="none").model(torch.arange(3, 9)[None])
    vectors = cutaway.load(tmp_path, head="mean").model(torch.arange(3, 9)[None])
    assert error(torch.nn.functional.normalize(states.mean(1), dim=-1), vectors) < 1e-6


def test_decoders_are_refused() -> None:
    for family in POOLED:
        module = families.get(family)
        config = module.write(next(iter(module.PRESETS.values())))
        with pytest.raises(ConfigError, match="is_decoder"):
            module.read({**config, "is_decoder": True})


def test_published_rows_of_positions() -> None:
    """514 rows hold 512 tokens, as in RoBERTa; one more is refused instead of looked up."""
    model = cutaway.build("roberta-base", vocab=20, width=8, layers=1, heads=2)
    assert model.stack.embedding.steps[1].weight.shape[0] == 514
    assert model(torch.zeros((1, 512), dtype=torch.int64)).shape == (1, 512, 8)
    with pytest.raises(CapacityError, match="513 tokens"):
        model(torch.zeros((1, 513), dtype=torch.int64))


def test_a_tokenizers_padding_does_not_move_positions(tmp_path: Path) -> None:
    """The config's `pad_token_id` counts RoBERTa's positions: a tokenizer that pads with another must not write it."""
    model = cutaway.build("roberta", vocab=20, width=8, layers=1, heads=2, hidden=8)
    loaded = cutaway.Loaded(model, None, "roberta", model.sizes, "", {"pad_token_id": 7})
    cutaway.save(loaded, tmp_path)
    assert cutaway.load(tmp_path).sizes == model.sizes


# ---- ALBERT's sharing ----


def test_shared_blocks_are_one() -> None:
    """Counted once, shown by where they run, and trained by every run."""
    model = cutaway.build(
        "albert", vocab=20, table_width=4, width=8, layers=5, groups=2, blocks=2, heads=2, hidden=8, seed=0
    )
    assert len(model.stack.blocks) == 10
    assert len({id(block) for block in model.stack.blocks}) == 4
    names = [name for name, _ in model.named_parameters() if name.startswith("stack.blocks.")]
    assert {name.split(".")[2] for name in names} == {"0", "1", "6", "7"}
    with recording() as trace:
        out = model(torch.arange(3, 9)[None])
    assert trace.sites == [f"blocks.{i}.attention" for i in range(10)]
    assert not torch.equal(trace["blocks.0.attention"].weights(), trace["blocks.2.attention"].weights())
    out.square().sum().backward()
    weight = model.stack.blocks[0].feedforward.inner.up.weight
    summed = weight.grad.clone()
    model.zero_grad()
    for run in range(3):  # the gradient is the sum over the three runs of the first group: let all but one stand still
        with torch.no_grad():
            copies = [
                _copy(model.stack.blocks[0]) if i in (0, 2, 4) else block for i, block in enumerate(model.stack.blocks)
            ]
        apart = [copies[i].feedforward.inner.up.weight for i in (0, 2, 4)]
        model.stack.blocks, shared = torch.nn.ModuleList(copies), model.stack.blocks
        model(torch.arange(3, 9)[None]).square().sum().backward()
        model.stack.blocks = shared
        summed -= apart[run].grad
    assert summed.abs().max() < 1e-4 * weight.abs().max()


def _copy(block: torch.nn.Module) -> torch.nn.Module:
    import copy

    return copy.deepcopy(block)


def test_the_card_counts_work_as_often_as_it_is_done() -> None:
    sizes = {"vocab": 20, "table_width": 4, "width": 8, "heads": 2, "hidden": 8}
    module = families.get("albert")
    shared, own = (card.describe("albert", module.Sizes(layers=6, groups=groups, **sizes)) for groups in (1, 6))
    assert shared.parameters < own.parameters
    assert shared.flops_per_token == own.flops_per_token


def test_many_layers_of_few_tensors_load(tmp_path: Path) -> None:
    """24 layers in 23 tensors, as the larger ALBERT without a pooler; but not as many as a config likes."""
    model = cutaway.build(
        "albert", vocab=20, table_width=4, width=8, layers=24, heads=2, hidden=8, pooler=False, seed=0
    )
    cutaway.save(model, tmp_path)
    loaded = cutaway.load(tmp_path)
    assert torch.equal(loaded.model(torch.arange(3, 9)[None]), model(torch.arange(3, 9)[None]))
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for key, message in (
        ("num_hidden_layers", "at most 10000"),
        ("inner_group_num", "too many"),
        ("hidden_size", "described as"),
    ):
        path.write_text(json.dumps({**config, key: 10**8}))
        with pytest.raises((ConfigError, CheckpointError), match=message):
            cutaway.load(tmp_path)


@pytest.mark.parametrize(("layers", "groups"), [(12, 1), (12, 12), (7, 3), (18, 14), (50, 49)])
def test_groups_are_the_published_ones(layers: int, groups: int) -> None:
    s = families.get("albert").Sizes(layers=layers, groups=groups)
    found = [s.group(layer) for layer in range(layers)]
    assert found == [int(i / (layers / groups)) for i in range(layers)]
    assert set(found) == set(range(groups))


# ---- ModernBERT's configurations ----


def test_layers_in_no_rhythm_are_refused() -> None:
    module = families.get("modernbert")
    config = module.write(module.Sizes(layers=4))
    kinds = ["full_attention", "full_attention", "sliding_attention", "full_attention"]
    with pytest.raises(ConfigError, match="layer_types"):
        module.read({**config, "layer_types": kinds})
    with pytest.raises(ConfigError, match="rope_type"):
        module.read({**config, "rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 1.0}}})


def test_old_and_new_configurations_say_the_same() -> None:
    """`global_attn_every_n_layers` and `global_rope_theta` (2024) against `layer_types` and `rope_parameters` (2025)."""
    module = families.get("modernbert")
    old = module.write(module.Sizes(layers=7, every=3, rotary_base=500.0, local_rotary_base=70.0, window=5))
    new = hf.ModernBertConfig(**old)
    assert new.sliding_window == 4
    config = {**json.loads(new.to_json_string(use_diff=False)), "architectures": ["ModernBertModel"]}
    assert {"layer_types", "rope_parameters"} <= config.keys()
    config = {name: value for name, value in config.items() if not name.startswith(("global_", "local_rope"))}
    assert module.read(config) == module.read(old)
    two = {**config, "layer_types": [("sliding" if i % 2 else "full") + "_attention" for i in range(7)]}
    assert module.read(two).every == 2


@pytest.mark.parametrize("backend", ["eager", "sdpa", "tiled"])
def test_long_texts_look_both_near_and_far(backend: str) -> None:
    """Beyond the window, in a batch padded on the left: as each text alone, in the reference."""
    case = FAMILIES["modernbert"].CASES[0]
    theirs = sharp(case)
    ours = counterpart(theirs)
    ids = torch.randint(3, 99, (2, 61))
    padding = torch.ones_like(ids, dtype=torch.bool)
    padding[1, :20] = False
    with torch.no_grad(), cutaway.attention.backend(backend):
        found = ours(ids, padding)
        assert error(found[:1], theirs(ids[:1]).last_hidden_state) < 1e-5
        assert error(found[1:, 20:], theirs(ids[1:, 20:]).last_hidden_state) < 1e-5


@pytest.mark.parametrize("family", POOLED)
@pytest.mark.parametrize("position", ["none", "learned", "sinusoidal", "rotary", "alibi", "t5"])
def test_other_positions(family: str, position: str) -> None:
    """Each fits, tables narrower than the layers included, and moves the numbers of no padded row."""
    narrow = {"table_width": 4} if family in ("electra", "albert") else {}
    sizes = {"vocab": 99, "width": 8, "layers": 2, "heads": 2, "hidden": 8, **narrow}
    model = cutaway.build(family, seed=0, position=position, **sizes)
    for batch in batches():
        with torch.no_grad():
            found = model(batch.ids, batch.padding)
            for row, ids, real in zip(found, batch.ids, batch.real, strict=True):
                assert error(row[real], model(ids[real][None])[0]) < 1e-5
