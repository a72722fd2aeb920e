"""How much memory there is, and how much of it a token of training takes. Reads the system, no more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def is_exhausted(error: BaseException) -> bool:
    """Whether the error says that memory did not suffice."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The CPU allocator has no exception class of its own.
    phrases = ("can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)


def available_bytes(device: str, *, cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Return what may still be allocated: on the GPU, or within the container's limit."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info()
        return int(free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit = _number(cgroup / "memory.max")
    if limit is None:
        return available
    # Cached files count as used, and give way.
    used = (_number(cgroup / "memory.current") or 0) - _inactive_file_bytes(cgroup)
    return max(0, min(available, limit - used))


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _inactive_file_bytes(cgroup: Path) -> int:
    try:
        lines = (cgroup / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith("inactive_file ")]
    return int(found[0]) if found else 0


@contextmanager
def counting_kept(model: torch.nn.Module) -> Iterator[Callable[[], int]]:
    """Count the bytes that forward passes in the block keep for backward; weights are not counted."""
    sizes: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def same(tensor: Any) -> Any:
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, same):
        yield lambda: sum(sizes.values())
