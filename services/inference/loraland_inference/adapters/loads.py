"""A load of an artifact into a slot that is under way, and those who wait for it. No I/O."""

import asyncio

from loraland_inference.adapters.slots import Slot


class Load:
    """Each of those who wait for it is owed a reference on the slot."""

    def __init__(self) -> None:
        self.num_waiting = 0
        self.slot: Slot | None = None
        self.task: asyncio.Task[Slot]


def retrieve(task: asyncio.Task[Slot]) -> None:
    """Look at a task's error, so that one that nobody waits for any more is not reported as lost."""
    if not task.cancelled():
        task.exception()
