"""What is particular to BART, mBART, Marian and Pegasus: published configurations, classes, tables of waves, folders."""

import json

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tests.checkpoints.tiny import BART, WAVES, answer, our_answer, relative_error, saved
from tests.families.cases.bart import compact
from tests.families.oracles import error

import cutaway
from cutaway.errors import CheckpointError, ConfigError
from cutaway.families import bart
from cutaway.parts.call import behind
from cutaway.parts.position import SinusoidalPositions

# as published, in the first years, with what went without saying later
CNN = {
    "model_type": "bart", "architectures": ["BartForConditionalGeneration"], "_num_labels": 3, "activation_dropout": 0.0,
    "activation_function": "gelu", "add_bias_logits": False, "add_final_layer_norm": False, "attention_dropout": 0.0,
    "bos_token_id": 0, "classif_dropout": 0.0, "classifier_dropout": 0.0, "d_model": 1024,
    "decoder_attention_heads": 16, "decoder_ffn_dim": 4096, "decoder_layerdrop": 0.0, "decoder_layers": 12,
    "decoder_start_token_id": 2, "dropout": 0.1, "early_stopping": True, "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096, "encoder_layerdrop": 0.0, "encoder_layers": 12, "eos_token_id": 2,
    "force_bos_token_to_be_generated": True, "forced_bos_token_id": 0, "forced_eos_token_id": 2, "init_std": 0.02,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, "is_encoder_decoder": True, "length_penalty": 2.0,
    "max_length": 142, "max_position_embeddings": 1024, "min_length": 56, "no_repeat_ngram_size": 3,
    "normalize_before": False, "normalize_embedding": True, "num_beams": 4, "num_hidden_layers": 12,
    "output_past": True, "pad_token_id": 1, "prefix": " ", "scale_embedding": False,
    "static_position_embeddings": False, "task_specific_params": {"summarization": {"num_beams": 4}},
    "vocab_size": 50264,
}  # fmt: skip
OPUS = {
    "model_type": "marian", "architectures": ["MarianMTModel"], "activation_function": "swish",
    "add_final_layer_norm": False, "bad_words_ids": [[58100]], "d_model": 512, "decoder_attention_heads": 8,
    "decoder_ffn_dim": 2048, "decoder_layers": 6, "decoder_start_token_id": 58100, "decoder_vocab_size": 58101,
    "encoder_attention_heads": 8, "encoder_ffn_dim": 2048, "encoder_layers": 6, "eos_token_id": 0,
    "extra_pos_embeddings": 58101, "forced_eos_token_id": 0, "max_length": 512, "max_position_embeddings": 512,
    "normalize_before": False, "normalize_embedding": False, "num_beams": 6, "num_hidden_layers": 6,
    "pad_token_id": 58100, "scale_embedding": True, "share_encoder_decoder_embeddings": True,
    "static_position_embeddings": True, "vocab_size": 58101,
}  # fmt: skip


def test_published_configurations():
    assert bart.read(CNN) == bart.PRESETS["bart-large-cnn"]
    assert bart.read(OPUS) == bart.PRESETS["marian-en-de"]
    for config, name, value in (
        (CNN, "normalize_before", True), (CNN, "tie_word_embeddings", False), (CNN, "static_position_embeddings", True),
        (OPUS, "decoder_vocab_size", 7), (OPUS, "share_encoder_decoder_embeddings", False),
        (CNN, "architectures", ["BartForCausalLM"]),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=name if name != "architectures" else "BartForCausalLM"):
            bart.read({**config, name: value})


@pytest.mark.parametrize("preset", bart.PRESETS)
def test_the_reference_counts_as_many(preset):
    """Its own model of the configuration we write; it counts Marian's waves, though no checkpoint of Marian's holds them."""
    config = bart.write(bart.PRESETS[preset])
    make = getattr(hf, config["architectures"][0])
    with torch.device("meta"):
        theirs = make(make.config_class(**{k: v for k, v in config.items() if k != "architectures"}))
    waves = 2 * 512 * 512 if preset == "marian-en-de" else 0
    assert sum(p.numel() for p in theirs.parameters()) - waves == bart.PARAMETERS[preset]


def test_a_target_is_the_source_moved_on():
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 8, 9], [5, 6, 7, 8, 9], [5, 6, 7, 8, 9]])
    real = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1]]).bool()
    found = behind(2, ids, real)
    assert [row[kept].tolist() for row, kept in zip(found, real, strict=True)] == [
        [2, 5, 6, 7, 8], [2, 7, 8], [2, 5, 6], [2, 6, 8],
    ]  # fmt: skip
    assert torch.equal(behind(2, ids, None), behind(2, ids, torch.ones_like(real)))


def test_a_row_is_alone_wherever_its_padding_is():
    """Also inside it."""
    model = cutaway.build("bart-base", vocab=60, width=32, layers=2, heads=4, context=16, seed=0, head="sequence")
    ids = torch.randint(3, 60, (1, 6))
    padded, real = torch.zeros(1, 9, dtype=torch.int64), torch.tensor([[0, 1, 1, 0, 1, 1, 0, 1, 1]]).bool()
    padded[real] = ids[0]
    with torch.no_grad():
        assert error(model(padded, source_padding=real), model(ids)) < 1e-5
    assert torch.equal(compact(padded, real, 1)[0][:, :6], ids)


def test_a_classifier_there_and_back(tmp_path):
    """With the reference's own number of classes, which it leaves out of the file."""
    torch.manual_seed(0)
    theirs = hf.BartForSequenceClassification(hf.BartConfig(**BART)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = cutaway.load(tmp_path / "theirs")
    assert loaded.sizes.labels == theirs.config.num_labels == 3
    cutaway.save(loaded, tmp_path / "ours")
    again = hf.BartForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    ids = torch.cat([torch.randint(3, 90, (2, 7)), torch.full((2, 1), 2)], 1)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, theirs(ids).logits)
        assert error(loaded.model(ids), theirs(ids).logits) < 1e-5
        # fresh classes above a model that writes
    saved("bart", tmp_path / "lm")
    with pytest.warns(UserWarning, match="starting afresh"):
        fresh = cutaway.load(tmp_path / "lm", head="sequence", labels=4)
    assert fresh.model(ids).shape == (2, 4)


def test_the_bias_of_the_logits_is_kept_and_not_trained(tmp_path):
    theirs = saved("marian", tmp_path / "theirs")
    loaded = cutaway.load(tmp_path / "theirs")
    assert torch.equal(loaded.model.head.bias, theirs.final_logits_bias[0])
    assert not loaded.model.head.bias.requires_grad
    tensors = load_file(tmp_path / "theirs" / "model.safetensors")
    del tensors["final_logits_bias"]  # as in the first checkpoints
    save_file(tensors, tmp_path / "theirs" / "model.safetensors", {"format": "pt"})
    without = cutaway.load(tmp_path / "theirs").model
    assert without.head.bias is None
    theirs.final_logits_bias.zero_()
    with torch.no_grad():
        ids = torch.randint(3, 90, (2, 7))
        assert error(without(ids, ids), theirs(ids, decoder_input_ids=ids).logits) < 1e-5


@pytest.mark.parametrize("name", ["marian", "pegasus"])
def test_a_table_of_waves_is_read_where_there_is_one(name, tmp_path):
    theirs = saved(name, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    table = "model.decoder.embed_positions.weight"
    assert (table in tensors) == (name == "pegasus")
    for stack in ("encoder", "decoder"):
        tensors[f"model.{stack}.embed_positions.weight"] = torch.randn(64, 32)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = cutaway.load(tmp_path)
    assert loaded.sizes.table
    assert not loaded.model.get_parameter("decoder.embedding.steps.0.weight").requires_grad
    reread = type(theirs).from_pretrained(tmp_path).eval()
    assert relative_error(our_answer(loaded), answer(reread)) < 1e-5
    tensors.pop(table)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="embed_positions"):  # one of two is not whole
        cutaway.load(tmp_path)


def test_waves_equal_the_reference():
    for width in (32, 33):
        theirs = hf.models.marian.modeling_marian.MarianSinusoidalPositionalEmbedding(50, width).create_weight()
        ours = SinusoidalPositions(width, halves=True).table(torch.arange(50)[None])[0]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-7)


@pytest.mark.parametrize(("name", "config"), [("bart", BART), ("marian", WAVES)])
def test_published_rules_of_generation_hold_after_loading(name, config, tmp_path):
    """Folders old and new: in `generation_config.json`, or in `config.json` alone."""
    theirs = saved(name, tmp_path)
    rules = {"forced_bos_token_id": 7, "forced_eos_token_id": 2, "bad_words_ids": [[95]], "eos_token_id": 2}
    for name, value in rules.items():
        setattr(theirs.generation_config, name, value)
    ids = torch.randint(3, 90, (1, 7))
    expected = theirs.generate(ids, do_sample=False, num_beams=3, max_new_tokens=9)[0, 1:].tolist()
    (tmp_path / "generation_config.json").unlink()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **rules}))
    found = cutaway.generate(cutaway.load(tmp_path), ids, beams=3, max_new_tokens=9, eos=2).ids[0]
    assert found == expected[: len(found)]
    assert found[0] == 7
    assert found[-1] == 2
    cutaway.convert(tmp_path, tmp_path / "again")
    again = cutaway.load(tmp_path / "again")
    assert again.generation == cutaway.load(tmp_path).generation


@pytest.mark.parametrize("preset", ["bart-base", "mbart-large-50", "marian-en-de", "pegasus-large"])
def test_what_is_built_runs_in_the_reference(preset, tmp_path):
    """Also where it begins to write, which is no matter of a tokenizer."""
    sizes = {"vocab": 60, "width": 32, "layers": 2, "heads": 4, "context": 32, "start": 3}
    model = cutaway.build(preset, **sizes, seed=0)
    cutaway.save(model, tmp_path / "x")
    theirs = hf.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "x").eval()
    ids = torch.randint(4, 60, (1, 7))
    with torch.no_grad():
        assert error(model(ids, ids), theirs(input_ids=ids, decoder_input_ids=ids).logits) < 1e-5
    assert theirs.generate(ids, max_new_tokens=2, eos_token_id=None)[0, 0] == 3
