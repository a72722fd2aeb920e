"""What a safetensors header may claim, and what is refused by name."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loraland_core import safetensors_header
from loraland_core.errors import ArtifactInvalid
from loraland_core.safetensors_header import TensorEntry

GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def write(path: Path, header: bytes | dict[str, Any], body_bytes: int = 16) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(body_bytes))
    return path


def test_read_returns_what_is_there(tmp_path: Path) -> None:
    """Metadata is no tensor."""
    header = {
        "__metadata__": {"format": "pt"},
        "a": GOOD,
        "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
    }

    found = safetensors_header.read(write(tmp_path / "w", header, 22))

    assert found == {
        "a": TensorEntry("F32", (2, 2), 0, 16),
        "b": TensorEntry("BF16", (3,), 16, 22),
    }


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"{ ", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[]", "not a table"),
        (b'{"a":{},"a":{}}', "twice"),
        ({"a": 1}, "malformed"),
        ({"a": GOOD | {"shape": [2.0, 2]}}, "malformed"),
        ({"a": GOOD | {"shape": [True, 4]}}, "malformed"),
        ({"a": GOOD | {"data_offsets": [0]}}, "malformed"),
        ({"a": GOOD | {"dtype": "I64"}}, "dtype I64"),
        ({"a": GOOD | {"dtype": ["F32"] * 9}}, "dtype"),
        ({"a": GOOD | {"shape": []}}, "outside the file"),
        ({"a": GOOD | {"shape": [1] * 9}}, "outside the file"),
        ({"a": GOOD | {"shape": [-1, -4]}}, "outside the file"),
        ({"a": GOOD | {"data_offsets": [-16, 0]}}, "outside the file"),
        ({"a": GOOD | {"data_offsets": [16, 32]}}, "outside the file"),
        ({"a": GOOD | {"shape": [2**40, 2**40]}}, "disagree"),
        ({"a": GOOD, "b": GOOD}, "overlaps"),
        ({"a": GOOD | {"shape": [2], "data_offsets": [8, 16]}}, "hole"),
        ({"a": GOOD | {"shape": [2], "data_offsets": [0, 8]}}, "belong to no tensor"),
    ],
    ids=[
        "cut", "deep", "list", "twice", "number", "float-size", "bool-size", "one-offset", "dtype",
        "dtype-list", "no-dimension", "many-dimensions", "negative-size", "negative-offset",
        "beyond", "huge", "overlap", "hole", "rest",
    ],
)  # fmt: skip
def test_read_refuses_false_claims(
    tmp_path: Path, header: bytes | dict[str, Any], words: str
) -> None:
    """Each is told by name, before any tensor is made."""
    with pytest.raises(ArtifactInvalid, match=words):
        safetensors_header.read(write(tmp_path / "w", header))


@pytest.mark.parametrize(
    "data", [b"", b"1234567", struct.pack("<Q", 2**63), struct.pack("<Q", 1) + b"{}"]
)
def test_read_refuses_a_length_that_is_not_there(tmp_path: Path, data: bytes) -> None:
    """Nothing is read for a header that the file cannot hold."""
    path = tmp_path / "w"
    path.write_bytes(data)

    with pytest.raises(ArtifactInvalid, match="header claims"):
        safetensors_header.read(path)


def test_read_refuses_a_table_that_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of tensors is bounded."""
    monkeypatch.setattr(safetensors_header, "MAX_TENSORS", 1)

    with pytest.raises(ArtifactInvalid, match="at most 1 tensors"):
        safetensors_header.read(write(tmp_path / "w", {"a": GOOD, "b": GOOD}))


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=200))
def test_read_answers_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever the file is, the answer is a table or a refusal."""
    path = tmp_path_factory.mktemp("any") / "w"
    path.write_bytes(struct.pack("<Q", len(data)) + data)

    try:
        found = safetensors_header.read(path)
    except ArtifactInvalid:
        found = {}

    assert found == {}
