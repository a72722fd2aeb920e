"""Packed adapters as files: what a slot holds, laid out so that a mapping of the file is the adapter.

Written once, beside the step loop, and mapped as often as the adapter comes into a slot again: on a
CPU the pages are shared by every mapping, on a GPU they are copied in one piece from pinned memory.
The format is safetensors. These files are our own; what others wrote is read by ``adapter_file``.
"""

import json
import os
import struct
from pathlib import Path
from typing import Any

import torch
from loraland_core.errors import ArtifactInvalid
from torch import Tensor

from loraland_engine.lora import LoraAdapter, LoraWeights

# Changes with the layout; a file of another one is not read but written again.
VERSION = 2
# So that no row of a weight begins within a cache line where its length allows it.
ALIGN_BYTES = 64
PAGE_BYTES = 4096
_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int8: "I8",
}
_TORCH_DTYPES = {name: dtype for dtype, name in _DTYPES.items()}
_PARTS = ("a", "b", "scale")
PADDING = "#padding-"


def write(adapter: LoraAdapter, path: Path, *, packing: str) -> int:
    """Write the adapter, whole or not at all; return the file's size."""
    header: dict[str, Any] = {"__metadata__": {"packing": packing, "rank": str(adapter.rank)}}
    body: list[Tensor] = []
    size_bytes = 0
    for name, tensor in _named(adapter):
        # The format has no holes; a tensor that nobody reads is one.
        padding = torch.zeros(-size_bytes % ALIGN_BYTES, dtype=torch.int8)
        for key, part in ((f"{PADDING}{len(body)}", padding), (name, tensor)):
            if part.numel():
                header[key] = _entry(part, size_bytes)
                body.append(part)
                size_bytes += part.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGN_BYTES)
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for tensor in body:
                file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return 8 + len(text) + size_bytes


def _entry(tensor: Tensor, start: int) -> dict[str, Any]:
    return {
        "dtype": _DTYPES[tensor.dtype],
        "shape": list(tensor.shape),
        "data_offsets": [start, start + tensor.nbytes],
    }


def read(path: Path, *, packing: str, device: torch.device | str = "cpu") -> LoraAdapter:
    """Return the adapter over a mapping of the file, or over a copy of it on the device.

    The pages are read here, so that a step never waits for one. Raises ``ArtifactInvalid`` for a
    file that is not there or of another packing.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(header_bytes))
        metadata = header.pop("__metadata__", {})
        end = 8 + header_bytes + max(e["data_offsets"][1] for e in header.values())
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _lost(path, str(error)) from error
    if metadata.get("packing") != packing:
        raise _lost(path, f"is of packing {metadata.get('packing')!r}, not {packing!r}")
    if end != size_bytes:
        raise _lost(path, f"ends after {size_bytes} bytes, not {end}")
    storage = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=size_bytes)
    bytes_ = torch.empty(0, dtype=torch.uint8).set_(storage)  # type: ignore[arg-type]
    body = _on_device(bytes_[8 + header_bytes :], torch.device(device))
    parts: dict[str, dict[str, Tensor]] = {}
    for name, entry in header.items():
        if name.startswith(PADDING):
            continue
        start, end = entry["data_offsets"]
        tensor = body[start:end].view(_TORCH_DTYPES[entry["dtype"]]).view(entry["shape"])
        module, _, part = name.rpartition("#")
        parts.setdefault(module, {})[part] = tensor
    weights = {m: LoraWeights(p["a"], p["b"], p.get("scale")) for m, p in parts.items()}
    return LoraAdapter(weights, rank=int(metadata["rank"]))


def _on_device(bytes_: Tensor, device: torch.device) -> Tensor:
    if device.type == "cpu":
        # One byte of each page: the mapping is complete before a step reads it.
        bytes_[::PAGE_BYTES].sum()
        return bytes_
    # A copy from pageable memory goes through the driver's own small buffers, and blocks them.
    pinned = torch.empty_like(bytes_, pin_memory=True)
    pinned.copy_(bytes_)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        copy = pinned.to(device, non_blocking=True)
    stream.synchronize()
    return copy


def _named(adapter: LoraAdapter) -> list[tuple[str, Tensor]]:
    found = []
    for module, weights in adapter.weights.items():
        for part, tensor in zip(_PARTS, (weights.a_RD, weights.b_RO, weights.scale_R), strict=True):
            if tensor is not None:
                found.append((f"{module}#{part}", tensor))
    return found


def _lost(path: Path, message: str) -> ArtifactInvalid:
    return ArtifactInvalid(message, field=os.fspath(path.name), reason="PackedFileLost")
