"""Waiting for the world to be as expected, within a limit."""

import asyncio
import subprocess
import time
from collections.abc import Callable
from typing import Any


def wait_for(
    condition: Callable[[], Any],
    *,
    limit_s: float = 60,
    process: "subprocess.Popen[bytes] | None" = None,
) -> None:
    """Wait until something is so; fail when it is not within the limit."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert process is None or process.poll() is None, "the replica has ended"
        assert time.monotonic() < deadline_s, "waited too long"
        time.sleep(0.05)


async def until(condition: Callable[[], Any], *, limit_s: float = 60) -> None:
    """``wait_for`` beside running requests."""
    await asyncio.to_thread(wait_for, condition, limit_s=limit_s)
