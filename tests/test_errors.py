"""What a user is told is one line that any terminal can show, whatever a hostile file calls its tensors."""

import json
import struct
from pathlib import Path

import pytest

import cutaway
from cutaway.errors import LONGEST, CheckpointError, CutawayError


def test_messages_are_one_plain_line() -> None:
    assert str(CutawayError("two\nlines")) == "two lines"
    assert str(CutawayError("\x1b[31mred\x07 \u202ereversed é 日本")) == "\\x1b[31mred\\x07 \\u202ereversed é 日本"
    assert len(str(CheckpointError("x" * 10**6))) == LONGEST
    assert str(CutawayError()) == ""


def test_names_in_a_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    sizes = {"vocab": 9, "width": 8, "layers": 1, "heads": 2, "kv_heads": 2, "hidden": 8, "head_width": 4}
    cutaway.save(cutaway.build("llama", **sizes, seed=0), tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    header["evil\n\x1b]0;title\x07" + "y" * 5000] = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    with pytest.raises(CheckpointError, match=r"holds evil \\x1b\]0;title\\x07yyy") as caught:
        cutaway.load(tmp_path / "model")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= LONGEST
