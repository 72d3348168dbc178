"""GGUF: every type against ggml's own decoder, the header against its own reader, models against the reference library."""

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.checkpoints.tiny import LLAMA, LLAMA3, answer, our_answer, relative_error

import cutaway
from cutaway.checkpoints import gguf_header, gguf_quants, open_source
from cutaway.errors import CheckpointError, ConfigError, CutawayError

Kind = gguf.GGMLQuantizationType
BLOCKS = [kind for kind, block, _ in gguf_header.TYPES.values() if block > 1]


def test_types_are_ggmls() -> None:
    for number, (name, block, size) in gguf_header.TYPES.items():
        assert Kind[name] == number
        assert gguf.GGML_QUANT_SIZES[Kind[name]] == (block, size)


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_decode_bit_for_bit(kind: str) -> None:
    """Random bytes: every small integer, every scale, not-a-numbers too."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (4000, gguf.GGML_QUANT_SIZES[Kind[kind]][1]), dtype=np.uint8)
    with np.errstate(all="ignore"):
        theirs, ours = gguf.dequantize(blocks, Kind[kind]), gguf_quants.DECODERS[kind](blocks)
    assert ours.dtype == np.float32
    number = ~np.isnan(theirs)
    assert np.array_equal(theirs.view(np.uint32)[number], ours.view(np.uint32)[number])
    assert np.isnan(ours[~number]).all()


def encoded(array: np.ndarray, kind: str) -> np.ndarray:
    """As bytes of a kind; where ggml's Python has no encoder, blocks that decode to modest random numbers."""
    if kind == "F32":
        return array
    try:
        return gguf.quantize(array, Kind[kind])
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[Kind[kind]]
        raw = np.random.default_rng(1).integers(0, 256, (array.size // block, size), dtype=np.uint8)
        scales = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind]
        for at in scales:
            raw[:, at : at + 2] = np.full((len(raw), 1), 1e-4, np.float16).view(np.uint8)
        return raw.reshape(*array.shape[:-1], -1)


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """How llama.cpp's converter lays out LLaMA's queries and keys."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write_llama(path: Path, model: Any, kind: str = "F32", more: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
    """A GGUF as llama.cpp's converter writes it; returns what it decodes to, under the published names."""
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    for name, value in (more or {}).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
        add[type(value)](name, value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    decoded = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.float().numpy()
        use = kind if array.ndim == 2 and kind != "F32" else "F32"
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        stored = encoded(np.ascontiguousarray(permuted(array, heads) if heads else array), use)
        plain = stored if use == "F32" else gguf.dequantize(stored, Kind[use])
        decoded[name] = inverse(plain, heads) if heads else plain
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), stored, raw_dtype=Kind[use])
    close(writer)
    return decoded


def inverse(weight: np.ndarray, heads: int) -> np.ndarray:
    return weight.reshape(heads, -1, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def close(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama(**config: Any) -> Any:
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**{**LLAMA, **config})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_hidden_layers": 1}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", *BLOCKS])
def test_llama_of_every_type(kind: str, tmp_path: Path) -> None:
    """The same answer as the reference library on the same decoded weights."""
    model = llama(**WIDE)
    decoded = write_llama(tmp_path / "model.gguf", model, kind)
    model.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in decoded.items()})
    loaded = cutaway.load(tmp_path / "model.gguf", dtype="float32")
    assert torch.equal(loaded.model.head.tokens.weight, model.lm_head.weight)
    assert relative_error(our_answer(loaded), answer(model)) < 1e-5
    if kind in BLOCKS:
        assert next(cutaway.load(tmp_path / "model.gguf").model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    "config",
    [
        {"tie_word_embeddings": True},
        {"attention_bias": True},
        {"head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
        {"num_key_value_heads": 4},
    ],
)
def test_llama_variants(config: dict[str, Any], tmp_path: Path) -> None:
    model, more = llama(**config), {}
    if "head_dim" in config:
        more |= {"llama.attention.key_length": 16, "llama.attention.value_length": 16, "llama.rope.dimension_count": 16}
    if config.get("rope_parameters", {}).get("rope_type") == "linear":
        more |= {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    write_llama(tmp_path / "m.gguf", model, more=more)
    assert relative_error(our_answer(cutaway.load(tmp_path / "m.gguf")), answer(model)) < 1e-5


def llama3_divisors(original: int, factor: float) -> np.ndarray:
    """As llama.cpp's converter computes `rope_freqs.weight`, frequency by frequency."""
    found = []
    for frequency in 1.0 / 500000.0 ** (torch.arange(0, 8, 2).float() / 8):
        wavelength = 2 * np.pi / float(frequency)
        if wavelength < original / 4:
            found.append(1.0)
        elif wavelength > original / 1:
            found.append(factor)
        else:
            smooth = (original / wavelength - 1) / (4 - 1)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, dtype=np.float32)


@pytest.mark.parametrize("original", [8192, 32])
def test_llama3_scaling(original: int, tmp_path: Path) -> None:
    """Recognised as the published numbers where they are those; exact in any case."""
    rope = {**LLAMA3, "original_max_position_embeddings": original}
    model = llama(rope_parameters=rope, max_position_embeddings=16384)
    model.model.register_buffer("freqs", torch.from_numpy(llama3_divisors(original, 8.0)))
    state, model.state_dict = model.state_dict(), None  # type: ignore[assignment]
    model.state_dict = lambda: {("rope_freqs.weight" if n == "model.freqs" else n): t for n, t in state.items()}
    names, original_map = gguf.get_tensor_name_map, gguf.get_tensor_name_map

    class WithFreqs:
        def __init__(self, *args: Any):
            self.map = original_map(*args)

        def get_name(self, name: str, **options: Any) -> str:
            return name if name == "rope_freqs.weight" else self.map.get_name(name, **options)

    gguf.get_tensor_name_map = WithFreqs  # type: ignore[assignment]
    try:
        write_llama(tmp_path / "m.gguf", model)
    finally:
        gguf.get_tensor_name_map = names
    loaded = cutaway.load(tmp_path / "m.gguf")
    assert loaded.sizes.rotary_scaling["rope_type"] == ("llama3" if original == 8192 else "factors")
    assert relative_error(our_answer(loaded), answer(model)) < 1e-5


def test_gpt2(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "gpt2")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-5)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 2)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        conv1d = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
        array = (tensor.t() if conv1d else tensor).contiguous().numpy()
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), array)
    close(writer)
    loaded = cutaway.load(tmp_path / "m.gguf")
    assert relative_error(our_answer(loaded), answer(model)) < 1e-5
    cutaway.save(loaded, tmp_path / "hf")
    assert torch.equal(answer(hf.GPT2LMHeadModel.from_pretrained(tmp_path / "hf").eval()), answer(model))


def test_header_as_ggmls_reader_sees_it(smollm2: Path) -> None:
    """Fields, names, shapes, types and places of a real file."""
    theirs = gguf.GGUFReader(smollm2)
    fields, infos, _ = gguf_header.read(smollm2)
    for name, field in theirs.fields.items():
        if not name.startswith("GGUF."):
            value = fields[name]
            assert (value if isinstance(value, (str, list)) else np.array(value).tolist()) == field.contents()
    assert len(infos) == len(theirs.tensors)
    for tensor in theirs.tensors:
        info = infos[tensor.name]
        assert (info.kind, list(info.shape)) == (tensor.tensor_type.name, tensor.shape[::-1].tolist())
        assert (info.offset, info.size) == (tensor.data_offset, tensor.n_bytes)


def test_smollm2_decodes_as_ggml_does(smollm2: Path) -> None:
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(smollm2).tensors}
    ours = open_source(smollm2).tensors
    for name, published in [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj.weight"),
        ("output_norm.weight", "model.norm.weight"),
    ]:
        want = gguf.dequantize(theirs[name].data, theirs[name].tensor_type)
        assert np.array_equal(ours[published].read().numpy(), want)
    want = inverse(gguf.dequantize(theirs["blk.3.attn_k.weight"].data, Kind.Q4_1), 3)
    assert np.array_equal(ours["model.layers.3.self_attn.k_proj.weight"].read().numpy(), want)


# ---- hostile files ----


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def header(tensors: int = 0, fields: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields)


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


HUGE = 2**62
HOSTILE = {
    "not GGUF": (b"GGML" + bytes(60), "no GGUF file"),
    "empty": (b"", "no GGUF file"),
    "too short": (b"GGUF\x03", "version"),
    "big-endian": (header(version=3 << 24), "big-endian"),
    "future version": (header(version=9), "version 9"),
    "terabytes of tensors": (header(tensors=HUGE) + bytes(100), "the header claims"),
    "terabytes of fields": (header(fields=HUGE) + bytes(100), "the header claims"),
    "string longer than the file": (header(fields=1) + struct.pack("<Q", HUGE) + bytes(50), "a field's name"),
    "value longer than the file": (header(fields=1) + text("k") + struct.pack("<IQ", 8, HUGE), "k claims"),
    "list longer than the file": (header(fields=1) + text("k") + struct.pack("<IIQ", 9, 4, HUGE), "k claims"),
    "strings longer than the file": (header(fields=1) + text("k") + struct.pack("<IIQ", 9, 8, HUGE), "k claims"),
    "list of lists": (header(fields=1) + text("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(64), "unknown type"),
    "unknown field type": (header(fields=1) + text("k") + struct.pack("<I", 77) + bytes(16), "unknown type"),
    "bad text": (header(fields=1) + struct.pack("<Q", 1) + b"\xff" + bytes(20), "UTF-8"),
    "duplicate field": (header(fields=2) + (text("k") + struct.pack("<IB", 0, 1)) * 2 + bytes(16), "k twice"),
    "duplicate tensor": (header(tensors=2) + tensor("w", (8,)) + tensor("w", (8,), offset=32) + bytes(99), "same name"),
    "unknown tensor type": (header(tensors=1) + tensor("w", (8,), kind=99) + bytes(99), "w is of ggml type 99"),
    "huge tensor": (header(tensors=1) + tensor("w", (HUGE, 4)) + bytes(99), "w ends at byte"),
    "overflowing shape": (header(tensors=1) + tensor("w", (2**63, 2**63, 2**63, 4)) + bytes(99), "w ends at byte"),
    "too many axes": (header(tensors=1) + text("w") + struct.pack("<I", 2**31) + bytes(99), "w has 2147483648 axes"),
    "no numbers": (header(tensors=1) + tensor("w", (8, 0)) + bytes(99), "w of type F32"),
    "half a block": (header(tensors=1) + tensor("w", (31,), kind=8) + bytes(99), "no whole block"),
    "offset outside": (header(tensors=1) + tensor("w", (8,), offset=1 << 40) + bytes(99), "w ends at byte"),
    "offset unaligned": (header(tensors=1) + tensor("w", (8,), offset=4) + bytes(99), "aligned"),
    "overlap": (header(tensors=2) + tensor("v", (16,)) + tensor("w", (8,), offset=32) + bytes(99), "w lies over"),
    "alignment 0": (header(fields=1) + text("general.alignment") + struct.pack("<II", 4, 0) + bytes(9), "alignment"),
    "alignment text": (header(fields=1) + text("general.alignment") + struct.pack("<I", 8) + text("x"), "alignment"),
    "other architecture": (
        header(fields=1) + text("general.architecture") + struct.pack("<I", 8) + text("rwkv"),
        "rwkv",
    ),
    "no architecture": (header(), "architecture None"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_header(case: str, tmp_path: Path) -> None:
    data, message = HOSTILE[case]
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        cutaway.load(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"llama.rope.scaling.type": "magic"}, "magic"),
        ({"llama.expert_count": 8}, "expert_count"),
        ({"llama.attention.temperature": 2.0}, "temperature"),
        ({"llama.rope.dimension_count": 4}, "dimension_count"),
        ({"llama.attention.key_length": 3}, ""),
        ({"split.count": 3}, "parts"),
    ],
)
def test_fields_that_are_not_understood(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_llama(tmp_path / "m.gguf", llama(), more=more)
    with pytest.raises((ConfigError, CheckpointError), match=message or "."):
        cutaway.load(tmp_path / "m.gguf")


def test_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_llama(path, llama())
    whole = path.read_bytes()
    for length in (*range(0, 2000, 97), len(whole) - 40):
        path.write_bytes(whole[:length])
        with pytest.raises(CutawayError):
            cutaway.load(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("small") / "m.gguf"
    write_llama(
        path, llama(num_hidden_layers=1, intermediate_size=64), "Q8_0", more={"tokenizer.chat_template": "{{ x }}"}
    )
    return path.read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 2300), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes(flips: list[tuple[int, int]], small: bytes, tmp_path: Path) -> None:
    """A clean load or one clear error, whatever happens to the header."""
    data = bytearray(small)
    for at, value in flips:
        data[at % len(data)] = value
    (tmp_path / "m.gguf").write_bytes(data)
    with suppress(CutawayError):
        cutaway.load(tmp_path / "m.gguf")


@pytest.mark.parametrize("name", ["output_norm_weight", "output_norm.height", "blk.x.output_norm.w"])
def test_a_tensor_of_no_known_name(name: str, small: bytes, tmp_path: Path) -> None:
    longest = name.encode().ljust(len("output_norm.weight"), b"t")[: len("output_norm.weight")]
    assert small.count(b"output_norm.weight") == 1
    (tmp_path / "m.gguf").write_bytes(small.replace(b"output_norm.weight", longest))
    with pytest.raises(CheckpointError, match=rf"holds {longest.decode()}, which the model its fields describe lacks"):
        cutaway.load(tmp_path / "m.gguf")
