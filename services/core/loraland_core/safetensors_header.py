"""What the header of a safetensors file claims, held against the file. Reads the header alone.

The file is untrusted: whoever maps it later must not find a tensor outside it, over another one, or
of a size that its shape does not have.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraland_core.errors import ArtifactInvalid

MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_TENSORS = 65_536
MAX_DIMENSIONS = 8
# Adapters are trained in these.
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class TensorEntry:
    """``start`` and ``end`` are counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read(path: Path) -> dict[str, TensorEntry]:
    """Return the tensors by name; raise ``ArtifactInvalid`` naming the claim that is wrong."""
    name = path.name
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
            if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, size_bytes - 8):
                raise _invalid(name, f"its header claims {header_bytes} bytes")
            header = _parse(file.read(header_bytes), name)
    except OSError as error:
        raise _invalid(name, f"cannot be read: {error.strerror}") from error
    if len(header) > MAX_TENSORS:
        raise _invalid(name, f"its header is not a table of at most {MAX_TENSORS} tensors")
    body_bytes = size_bytes - 8 - header_bytes
    header.pop("__metadata__", None)
    entries = {key: _entry(name, key, value, body_bytes) for key, value in header.items()}
    _check_cover(name, entries, body_bytes)
    return entries


def _parse(text: bytes, name: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        # Which of two counts differs from reader to reader.
        if len(found) != len(pairs):
            raise _invalid(name, "its header names something twice")
        return found

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except ArtifactInvalid:
        raise
    # A few bytes may nest deeper than the parser goes.
    except (ValueError, RecursionError) as error:
        raise _invalid(name, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _invalid(name, f"its header is not a table of at most {MAX_TENSORS} tensors")
    return header


def _entry(name: str, key: str, value: Any, body_bytes: int) -> TensorEntry:
    try:
        dtype, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
        numbers = [*shape, start, end]
    except (TypeError, KeyError, ValueError) as error:
        raise _invalid(name, f"{key[:200]}: malformed entry in the header") from error
    if not all(type(n) is int for n in numbers) or not isinstance(shape, list):
        raise _invalid(name, f"{key[:200]}: malformed entry in the header")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _invalid(name, f"{key[:200]} has dtype {str(dtype)[:20]}; expected F32, F16 or BF16")
    is_inside = 0 <= start <= end <= body_bytes
    if not 1 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 1 or not is_inside:
        raise _invalid(name, f"{key[:200]} has shape {str(shape)[:100]} outside the file")
    if math.prod(shape) * DTYPE_BYTES[dtype] != end - start:
        raise _invalid(name, f"{key[:200]}: its shape {str(shape)[:100]} and its size disagree")
    return TensorEntry(dtype, tuple(shape), start, end)


def _check_cover(name: str, entries: dict[str, TensorEntry], body_bytes: int) -> None:
    """Each byte of the body belongs to one tensor."""
    reached = 0
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != reached:
            what = "overlaps another" if entry.start < reached else "leaves a hole before it"
            raise _invalid(name, f"{key[:200]} {what}")
        reached = entry.end
    if entries and reached != body_bytes:
        raise _invalid(name, f"{body_bytes - reached} bytes at its end belong to no tensor")


def _invalid(name: str, message: str) -> ArtifactInvalid:
    return ArtifactInvalid(message, field=name)
