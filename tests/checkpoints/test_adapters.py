"""LoRA adapters against `peft`: its files read here, ours read there, and the same numbers and gradients."""

import json
import warnings

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.checkpoints import tiny

import cutaway
from cutaway import families
from cutaway.checkpoints import adapters
from cutaway.errors import CheckpointError, ConfigError, CutawayError, SourceError
from cutaway.layout import expand
from cutaway.parts import lora

TARGETS = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "llama-tied": "all-linear",
    "llama-bare": "all-linear",
    "mistral": "all-linear",
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "gpt2-bare": ["c_attn"],
    "gptneox": "all-linear",
    "bloom": "all-linear",
    "mpt": ["Wqkv", "up_proj"],
    "qwen3": "all-linear",
    "gemma2": "all-linear",
    "bert": ["query", "key", "dense"],
    "bert-masked": ["query", "key", "output.dense"],
    "roberta-token": ["query", "value"],
    "distilbert-masked": ["q_lin", "lin1"],
    "albert-masked": ["query", "ffn"],
    "modernbert-masked": ["Wqkv", "Wo"],
    "deberta-v2": ["query_proj", "key_proj"],
    "deberta": ["in_proj"],
    "electra": ["query", "value"],
    "bart": ["q_proj", "v_proj", "fc1"],
    "t5": ["q", "v", "wi", "wo"],
    "flan-t5": ["q", "k", "wi_0"],
    "mamba": ["in_proj", "x_proj"],
    "mamba2": ["in_proj"],
    "xlnet": ["layer_1"],
}


def theirs_on(name, folder, **options):
    """A PEFT model of random adapters on a tiny model of the reference, which is saved in `folder`."""
    base = tiny.saved(name, folder / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of settings that it has corrected
        model = get_peft_model(
            base, LoraConfig(**{"target_modules": TARGETS.get(name), "r": 3, "lora_alpha": 5, **options})
        )
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "lora_" in n:
                p.normal_(std=0.3)
            elif "modules_to_save" in n:
                p.add_(torch.randn_like(p) * 0.3)
    return model.eval()


def saved_by_peft(name, folder, **options):
    model = theirs_on(name, folder, **options)
    model.save_pretrained(folder / "adapter")
    return model


def close(ours, theirs):
    assert tiny.relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("name", TARGETS)
def test_what_peft_saved_says_the_same_here(name, tmp_path):
    theirs = saved_by_peft(name, tmp_path)
    ours = cutaway.load(tmp_path / "base", adapter=tmp_path / "adapter")
    close(tiny.our_answer(ours), tiny.answer(theirs))
    lora.use(ours.model, None)
    with theirs.disable_adapter():
        close(tiny.our_answer(ours), tiny.answer(theirs))


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_saved_here_says_the_same_in_peft(name, tmp_path):
    saved_by_peft(name, tmp_path)
    ours = cutaway.load(tmp_path / "base", adapter=tmp_path / "adapter")
    with torch.no_grad():
        for _, linear in lora.adapted(ours.model):
            linear.detours["default"].b.normal_(std=0.3)
    cutaway.save(ours, tmp_path / "ours", layout="peft")
    back = PeftModel.from_pretrained(tiny.reference(name), tmp_path / "ours").eval()
    close(tiny.our_answer(ours), tiny.answer(back))
    config = peft.PeftConfig.from_pretrained(tmp_path / "ours")
    assert config.base_model_name_or_path == str(tmp_path / "base")


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "t5", "gptneox", "mistral"])
def test_attached_here_says_the_same_in_peft(name, tmp_path):
    """Each of our matrices has a detour of its own; where theirs are one, so are the detours, side by side."""
    tiny.saved(name, tmp_path / "base")
    ours = cutaway.load(tmp_path / "base")
    lora.attach(ours.model, 2, 3.0, targets=["q", "v", "up"])
    if name == "gpt2":  # one matrix with another rank, on a published one of three
        lora.put(ours.model, "stack.blocks.1.attention.inner.k", "default", 4, 1.0)
    with torch.no_grad():
        for _, linear in lora.adapted(ours.model):
            linear.used = "default"
            linear.detours["default"].b.normal_(std=0.3)
    cutaway.save(ours, tmp_path / "ours", layout="peft")
    theirs = PeftModel.from_pretrained(tiny.reference(name), tmp_path / "ours").eval()
    close(tiny.our_answer(ours), tiny.answer(theirs))
    again = cutaway.load(tmp_path / "ours")  # the base is named in it
    close(tiny.our_answer(again), tiny.our_answer(ours))


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert-masked", "t5"])
def test_gradients_are_those_of_peft(name, tmp_path):
    theirs = saved_by_peft(name, tmp_path)
    ours = cutaway.load(tmp_path / "base", adapter=tmp_path / "adapter")
    ids = torch.arange(2, 24).reshape(2, 11)
    if name == "t5":
        ours.model(ids, ids.flip(1)).square().mean().backward()
        theirs(input_ids=ids, decoder_input_ids=ids.flip(1)).logits.square().mean().backward()
    else:
        ours.model(ids).square().mean().backward()
        theirs(input_ids=ids).logits.square().mean().backward()
    expected = {n: p.grad for n, p in theirs.named_parameters() if p.requires_grad}
    assert {n for n, p in ours.model.named_parameters() if p.requires_grad} == {
        n for n, p in ours.model.named_parameters() if ".detours." in n
    }
    rules = families.get(ours.family).weights(ours.sizes)
    parameters = [n for n, _ in ours.model.named_parameters() if ".detours." not in n]
    compared = 0
    for entry in expand(rules, parameters):
        key = f"base_model.model.{entry.theirs.removesuffix('.weight')}"
        if f"{key}.lora_A.default.weight" not in expected:
            continue
        detours = [ours.model.get_submodule(n.removesuffix(".weight")).detours["default"] for n in entry.ours]
        close(detours[0].a.grad, expected[f"{key}.lora_A.default.weight"])
        close(entry.op.outputs.write([d.b.grad for d in detours]), expected[f"{key}.lora_B.default.weight"])
        compared += 2
    assert compared == len(expected) > 4
    assert all(p.grad is None for n, p in ours.model.named_parameters() if ".detours." not in n)


def test_ranks_and_alphas_by_pattern_and_rank_stabilised(tmp_path):
    patterns = {
        "rank_pattern": {"q_proj": 5, "layers.1.self_attn.v_proj": 2},
        "alpha_pattern": {"v_proj": 9, r"^model\.layers.0.mlp.down_proj": 2},
    }
    theirs = saved_by_peft("llama", tmp_path, use_rslora=True, **patterns)
    ours = cutaway.load(tmp_path / "base", adapter=tmp_path / "adapter")
    close(tiny.our_answer(ours), tiny.answer(theirs))
    cutaway.save(ours, tmp_path / "ours", layout="peft")
    back = PeftModel.from_pretrained(tiny.reference("llama"), tmp_path / "ours").eval()
    close(tiny.our_answer(ours), tiny.answer(back))


@pytest.mark.parametrize(
    ("name", "task", "head"),
    [
        ("bert-sequence", "SEQ_CLS", "classifier"),
        ("llama-sequence", "SEQ_CLS", "score"),
        ("bert-token", "TOKEN_CLS", "classifier"),
        ("distilbert-span", "QUESTION_ANS", "qa_outputs"),
        ("gpt2-sequence", "SEQ_CLS", "score"),
    ],
)
def test_a_head_trained_whole_travels_with_the_adapter(name, task, head, tmp_path):
    body = {"bert": "bert", "llama": "llama", "distilbert": "distilbert-masked", "gpt2": "gpt2"}[name.partition("-")[0]]
    targets = {"bert": ["query"], "llama": ["q_proj"], "distilbert": ["q_lin"], "gpt2": ["c_attn"]}[
        name.partition("-")[0]
    ]
    theirs = theirs_on(name, tmp_path, target_modules=targets, modules_to_save=[head], task_type=task)
    theirs.save_pretrained(tmp_path / "adapter")
    # the base, as somebody has it: the same body without that head
    whole = cutaway.load(
        tmp_path / "base", head="none" if body == "bert" else "lm" if body != "distilbert-masked" else "none"
    )
    cutaway.save(whole, tmp_path / "body")
    ours = cutaway.load(tmp_path / "body", adapter=tmp_path / "adapter")
    assert ours.sizes.head == {"SEQ_CLS": "sequence", "TOKEN_CLS": "token", "QUESTION_ANS": "span"}[task]
    if "bert-sequence" not in name:  # whose pooler is part of a head that PEFT leaves in the base
        close(tiny.our_answer(ours), tiny.answer(theirs))
    ours = cutaway.load(tmp_path / "base", adapter=tmp_path / "adapter")
    close(tiny.our_answer(ours), tiny.answer(theirs))
    cutaway.save(ours, tmp_path / "ours", layout="peft")
    back = PeftModel.from_pretrained(tiny.reference(name), tmp_path / "ours").eval()
    close(tiny.our_answer(ours), tiny.answer(back))


def test_a_new_head_is_saved_with_the_names_of_its_classes(tmp_path):
    tiny.saved("bert", tmp_path / "base")
    with pytest.warns(UserWarning, match="starting afresh"):
        ours = cutaway.load(tmp_path / "base", head="sequence", labels=("bad", "good", "fair"))
    lora.attach(ours.model, also=["head"])
    cutaway.save(ours, tmp_path / "ours", layout="peft")
    again = cutaway.load(tmp_path / "ours")
    assert again.label_names == ("bad", "good", "fair")
    assert torch.equal(tiny.our_answer(ours), tiny.our_answer(again))


def test_several_adapters_take_turns_on_one_base(tmp_path):
    first = saved_by_peft("gpt2", tmp_path)
    tiny.saved("gpt2", tmp_path / "b" / "base")
    second = saved_by_peft("gpt2", tmp_path / "b", r=2, target_modules=["c_fc"])
    ours = cutaway.load(tmp_path / "base")
    plain = tiny.our_answer(ours)
    weights = {n: p.clone() for n, p in ours.model.named_parameters()}
    adapters.load(ours, tmp_path / "adapter", "first")
    adapters.load(ours, tmp_path / "b" / "adapter", "second")
    assert lora.names(ours.model) == ["first", "second"]
    close(tiny.our_answer(ours), tiny.answer(second))
    lora.use(ours.model, "first")
    close(tiny.our_answer(ours), tiny.answer(first))
    lora.detach(ours.model, "first")
    assert torch.equal(tiny.our_answer(ours), plain)
    lora.use(ours.model, "second")
    close(tiny.our_answer(ours), tiny.answer(second))
    lora.detach(ours.model)
    assert torch.equal(tiny.our_answer(ours), plain)
    after = dict(ours.model.named_parameters())
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[n], w) and after[n].requires_grad for n, w in weights.items())


def test_merged_is_a_plain_model_that_transformers_loads(tmp_path):
    import transformers

    theirs = saved_by_peft("gpt2", tmp_path)
    ours = cutaway.load(tmp_path / "base", adapter=tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"merge\(model\)"):
        cutaway.save(ours, tmp_path / "merged")
    cutaway.convert(tmp_path / "base", tmp_path / "merged", adapter=tmp_path / "adapter")
    merged = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "merged").eval()
    close(tiny.answer(merged), tiny.answer(theirs))
    close(tiny.our_answer(cutaway.load(tmp_path / "merged")), tiny.our_answer(ours))


def broken(folder, tensors=None, **config):
    """The adapter in `folder`, changed."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    if tensors:
        file = folder / "adapter_model.safetensors"
        save_file(tensors(load_file(file)), file)


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")
MAGNITUDE = A.replace("lora_A.weight", "lora_magnitude_vector")
EMBEDDING = "base_model.model.model.embed_tokens.lora_embedding_A"
NINTH_A, NINTH_B = (name.replace("layers.0", "layers.9") for name in (A, B))
HEAD_A, HEAD_B = (name.replace("model.layers.0.self_attn.q_proj", "lm_head") for name in (A, B))
BROKEN = {
    "dora": ({"use_dora": True}, None, "use_dora"),
    "bias": ({"bias": "all"}, None, "bias"),
    "other kind": ({"peft_type": "IA3"}, None, "peft_type"),
    "pissa": ({"init_lora_weights": "pissa"}, None, "changes the base"),
    "a later key": ({"use_something": True}, None, "use_something"),
    "tokens": ({"trainable_token_indices": [3]}, None, "trainable_token_indices"),
    "expression": ({"alpha_pattern": {"(a+)+$": 3}}, None, "alpha_pattern"),
    "alpha": ({"lora_alpha": "8"}, None, "alpha"),
    "infinite alpha": ({"lora_alpha": float("inf")}, None, "alpha"),
    "patterns": ({"alpha_pattern": [1]}, None, "alpha_pattern"),
    "dropout": ({"lora_dropout": "x"}, None, "dropout"),
    "half": ({}, lambda t: {k: v for k, v in t.items() if k != B}, "one half"),
    "ranks": ({}, lambda t: {**t, B: t[B][:, :1].contiguous()}, "do not go together"),
    "wide": ({}, lambda t: {**t, A: torch.zeros(3, 33)}, "leads from 33"),
    "vector": ({}, lambda t: {**t, A: torch.zeros(3)}, "do not go together"),
    "nan": ({}, lambda t: {**t, A: t[A] * float("nan")}, "not finite"),
    "integers": ({}, lambda t: {**t, A: t[A].int()}, "int32"),
    "none": ({}, lambda t: {"x": torch.zeros(1)}, "no matrices"),
    "unknown": ({}, lambda t: {NINTH_A: t[A], NINTH_B: t[B]}, "another model"),
    "magnitude": ({}, lambda t: {**t, MAGNITUDE: torch.zeros(3)}, "lora_magnitude_vector"),
    "embedding": ({}, lambda t: {**t, EMBEDDING: torch.zeros(3, 96)}, "lora_embedding"),
    "head": ({}, lambda t: {HEAD_A: torch.zeros(3, 32), HEAD_B: torch.zeros(96, 3)}, "no detour"),
    "a norm of another size": ({}, lambda t: {**t, "base_model.model.model.norm.weight": torch.zeros(31)}, "does not fit"),
    "base of no kind": ({"base_model_name_or_path": 3}, None, "names no base"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_adapter_is_one_clear_error(case, tmp_path):
    config, tensors, said = BROKEN[case]
    saved_by_peft("llama", tmp_path)
    broken(tmp_path / "adapter", tensors, **config)
    adapter = tmp_path / "adapter"
    given = (adapter,) if case == "base of no kind" else (tmp_path / "base",)
    with pytest.raises(CutawayError, match=said) as error:
        cutaway.load(*given, adapter=None if given == (adapter,) else adapter)
    assert str(tmp_path / "adapter") in str(error.value)


def test_nothing_is_left_in_a_model_by_an_adapter_that_does_not_fit(tmp_path):
    saved_by_peft("llama", tmp_path)
    broken(tmp_path / "adapter", BROKEN["wide"][1])
    ours = cutaway.load(tmp_path / "base")
    with pytest.raises(CheckpointError):
        adapters.load(ours, tmp_path / "adapter")
    assert not lora.names(ours.model)
    assert not list(lora.adapted(ours.model))


def test_a_base_that_is_not_there_or_an_adapter_itself(tmp_path):
    saved_by_peft("llama", tmp_path)
    broken(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(SourceError, match="--adapter"):
        cutaway.load(tmp_path / "adapter")
    assert cutaway.load(tmp_path / "base", adapter=tmp_path / "adapter").family == "llama"
    broken(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "adapter"))
    with pytest.raises(SourceError, match="adapter itself"):
        cutaway.load(tmp_path / "adapter")
    with pytest.raises(SourceError, match="adapter itself"):
        cutaway.load(tmp_path / "adapter", adapter=tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="no adapter"):
        cutaway.load(tmp_path / "base", adapter=tmp_path / "base")


def test_families_published_nowhere_keep_our_names(tmp_path):
    model = cutaway.build(
        "llama", vocab=90, width=32, layers=2, heads=4, kv_heads=4, hidden=48, head_width=8, mixer="window:8", seed=0
    )
    cutaway.save(model, tmp_path / "base")
    loaded = cutaway.load(tmp_path / "base")
    lora.attach(loaded.model, 2)
    with torch.no_grad():
        for _, linear in lora.adapted(loaded.model):
            linear.detours["default"].b.normal_(std=0.3)
    cutaway.save(loaded, tmp_path / "ours", layout="peft")
    again = cutaway.load(tmp_path / "ours")
    assert torch.equal(tiny.our_answer(again), tiny.our_answer(loaded))
