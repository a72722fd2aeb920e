"""How much memory there is for keys and values, and who gets how much of it.

Reads the system's counters, once at the start; everything else is numbers.
"""

from pathlib import Path

import torch
from loraland_core.errors import InvalidInput

from loraland_engine.block_manager import BlockManager
from loraland_engine.kv_memory import KvMemory
from loraland_engine.prefix_cache import PrefixCache

# Of what is free when the weights are loaded. A GPU serves nobody else; a CPU's memory also holds
# adapters, their files in the page cache, and other programs.
GPU_SHARE = 0.85
CPU_SHARE = 0.25
# Of that, for the beginnings of prompts.
PREFIX_SHARE = 0.25
# Small enough to waste little of a last block, large enough to be worth copying as one.
BLOCK_TOKENS = 16
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def default_bytes(device: torch.device) -> int:
    """Return the share of the free memory that keys and values get where nothing is configured."""
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        return int(free_bytes * GPU_SHARE)
    return int(free_cpu_bytes() * CPU_SHARE)


def free_cpu_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Return what this process can still have: of the machine, and of its container's limit."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free_bytes = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = (_number(cgroup / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free_bytes = min(free_bytes, max(0, limit - used))
    return free_bytes


def num_slots(device: torch.device, max_running: int, kv_bytes: int, *, slot_bytes: int) -> int:
    """Return how many whole contexts KV memory is made for.

    A CPU's memory is had page by page, so that blocks alone bound it; elsewhere it is had at once.
    """
    if device.type == "cpu":
        return max_running
    return max(1, min(max_running, int(kv_bytes * (1 - PREFIX_SHARE)) // slot_bytes))


def build_blocks(
    kv: KvMemory, total_bytes: int, *, keeps_prefixes: bool
) -> tuple[BlockManager, PrefixCache]:
    """Return the blocks that bound what runs, and those for what is kept."""
    context_blocks = -(-kv.context_tokens // BLOCK_TOKENS)
    num_blocks, num_cached = divide(
        total_bytes,
        block_bytes=BLOCK_TOKENS * kv.token_bytes,
        context_blocks=context_blocks,
        at_most=context_blocks * kv.num_slots,
    )
    return (
        BlockManager(num_blocks=num_blocks, block_tokens=BLOCK_TOKENS),
        PrefixCache(num_blocks=num_cached if keeps_prefixes else 0, block_tokens=BLOCK_TOKENS),
    )


def divide(
    total_bytes: int, *, block_bytes: int, context_blocks: int, at_most: int
) -> tuple[int, int]:
    """Return the blocks for what runs, and those for prefixes, a quarter of all that fit.

    What runs has room for one whole context, and for no more than ``at_most`` blocks. Raises
    ``InvalidInput`` where one context does not fit.
    """
    count = total_bytes // block_bytes
    if count < context_blocks:
        raise InvalidInput(
            f"is {total_bytes} bytes; one context alone takes {context_blocks * block_bytes}."
            " Give more memory, or serve a shorter context",
            field="kv_memory_bytes",
        )
    cached = min(int(count * PREFIX_SHARE), count - context_blocks)
    return min(count - cached, at_most), min(cached, at_most)


def _number(path: Path) -> int | None:
    """Return a counter of the container; None where there is none, or no limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
