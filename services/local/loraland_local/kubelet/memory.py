"""Watches what a container's processes use, since nothing else would hold them to their limit."""

import asyncio
from collections.abc import Callable

import psutil

_INTERVAL_S = 3.0


def used_bytes(pid: int) -> int:
    """Return the memory of a process and all its descendants that is not shared with files."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for member in family:
        try:
            found = member.memory_info()
        except psutil.Error:
            continue
        total += found.rss - getattr(found, "shared", 0)
    return total


async def watch(pid: int, limit_bytes: int, exceeded: Callable[[], None]) -> None:
    """Call ``exceeded`` once, when the limit is passed."""
    while True:
        await asyncio.sleep(_INTERVAL_S)
        if used_bytes(pid) > limit_bytes:
            exceeded()
            return
