"""The safetensors reader and writer against the reference implementation, and against hostile files."""

import json
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutaway.checkpoints import safetensors as ours
from cutaway.errors import CheckpointError, CutawayError

TENSORS = {
    "f32": torch.randn(3, 5),
    "f16": torch.randn(7).half(),
    "bf16": torch.randn(2, 3, 4).bfloat16(),
    "f64": torch.randn(1, 1).double(),
    "i64": torch.arange(6),
    "bool": torch.tensor([True, False, True]),
    "u8": torch.arange(5, dtype=torch.uint8),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "naïve ☃ name": torch.randn(2),
}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def test_reads_what_the_reference_writes(tmp_path: Path) -> None:
    safetensors.torch.save_file(TENSORS, tmp_path / "x.safetensors", {"format": "pt"})
    found = ours.read(tmp_path / "x.safetensors")
    assert found.keys() == TENSORS.keys()
    assert all(same(found[name].read(), TENSORS[name]) for name in TENSORS)


def test_what_is_mapped_is_ones_own(tmp_path: Path) -> None:
    """Writing to it changes neither the file nor what another reader has, and it outlives the file's name."""
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(TENSORS, path)
    before, cpu = path.read_bytes(), torch.device("cpu")
    first, second = ({name: t.made(t.dtype, cpu) for name, t in ours.read(path).items()} for _ in range(2))
    assert all(same(first[name], TENSORS[name]) for name in TENSORS)
    read = ours.read(path)["f32"].read()
    first["f32"].fill_(7.0)
    assert path.read_bytes() == before
    assert torch.equal(second["f32"], TENSORS["f32"])
    assert torch.equal(read, TENSORS["f32"])
    path.unlink()
    assert torch.equal(second["f32"], TENSORS["f32"])


def test_what_is_not_aligned_is_read(tmp_path: Path) -> None:
    """A header of any length is allowed; memory is only addressed where its numbers' size divides."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    header += b" " * ((1 - len(header)) % 4)
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<3f", 1, 2, 3))
    made = ours.read(tmp_path / "x.safetensors")["x"].made(torch.float32, torch.device("cpu"))
    assert made.tolist() == [1, 2, 3]


def test_the_reference_reads_what_we_write(tmp_path: Path) -> None:
    parts = [ours.Part(n, tuple(t.shape), t.dtype, lambda t=t: t) for n, t in TENSORS.items()]
    ours.write(tmp_path / "x.safetensors", parts, {"format": "pt"})
    found = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert found.keys() == TENSORS.keys()
    assert all(same(found[name], TENSORS[name]) for name in TENSORS)
    with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_converts_in_pieces(dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cutaway.checkpoints.stored.PIECE", 64)  # so that a small tensor takes many
    tensor = torch.randn(101)
    safetensors.torch.save_file({"x": tensor}, tmp_path / "x.safetensors")
    out = torch.empty(101, dtype=dtype)
    ours.read(tmp_path / "x.safetensors")["x"].fill(out)
    assert torch.equal(out, tensor.to(dtype))


def file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: object = (2,), offsets: object = (0, 8), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


EIGHT = bytes(8)
HOSTILE = {
    "empty file": (b"", "no whole safetensors"),
    "terabytes of header": (file({}, length=2**62), "no whole safetensors"),
    "header past the end": (file({"w": entry()}, length=5000), "no whole safetensors"),
    "no JSON": (file(b"{nope"), "not valid JSON"),
    "no text": (file(b"\xff\xfe{}"), "not valid JSON"),
    "deep": (file(b"[" * 200_000), "not valid JSON"),
    "no object": (file([1, 2]), "JSON object"),
    "twice": (file(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{}}', EIGHT), "'w' twice"),
    "cut off": (file({"w": entry()}, bytes(7)), "cut off: w"),
    "left over": (file({"w": entry()}, bytes(9)), "1 bytes that belong to no tensor"),
    "terabytes": (file({"w": entry([2**40], [0, 2**42])}, EIGHT), "cut off: w"),
    "overflowing shape": (file({"w": entry([2**62, 2**62, 2**62], [0, 8])}, EIGHT), "w makes no sense"),
    "shape and bytes differ": (file({"w": entry([3])}, EIGHT), r"w has shape \[3\], but 8 bytes"),
    "negative shape": (file({"w": entry([-2])}, EIGHT), "w makes no sense"),
    "negative offset": (file({"w": entry([2], [-8, 0])}, EIGHT), "w makes no sense"),
    "boolean shape": (file({"w": entry([True])}, EIGHT), "w makes no sense"),
    "fractional shape": (file({"w": entry([2.0])}, EIGHT), "w makes no sense"),
    "text for shape": (file({"w": entry("22")}, EIGHT), "w makes no sense"),
    "unknown type": (file({"w": entry(dtype="F7")}, EIGHT), "type 'F7'"),
    "list for type": (file({"w": entry(dtype=["F32"])}, EIGHT), "type"),
    "missing key": (file({"w": {"dtype": "F32"}}, EIGHT), "w makes no sense"),
    "number": (file({"w": 3}, EIGHT), "w makes no sense"),
    "overlap": (file({"v": entry(), "w": entry()}, EIGHT), "does not start where"),
    "hole": (file({"v": entry(), "w": entry([1], [12, 16])}, bytes(16)), "w does not start where"),
    "huge number": (file(b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}'), "JSON"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case: str, tmp_path: Path) -> None:
    data, message = HOSTILE[case]
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        ours.read(tmp_path / "x.safetensors")
    assert "x.safetensors" in str(caught.value)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4), cut=st.integers(0, 60)
)
def test_flipped_bytes(flips: list[tuple[int, int]], cut: int, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": torch.ones(4), "b": torch.ones(2, 3).half()}, path)
    data = bytearray(path.read_bytes())
    for at, value in flips:
        data[at % len(data)] = value
    path.write_bytes(data[: len(data) - cut % 7])
    with suppress(CutawayError):
        for tensor in ours.read(path).values():
            tensor.read()
