"""Notices a watch stream that died: kopf logs it and goes on without, for ever.

An API server's refusal of a list (a page that expired, rights that are changed just now) ends kopf's
watcher of that kind. Without it the operator would be blind until its liveness probe finds out.
"""

import asyncio

from loraland_core.errors import Unavailable

EVERY_S = 2.0
_WATCHER = "watcher for "
# Ends first when kopf stops; whatever ends after it was told to.
_RUNNING = "stop-flag checker"


async def watch(every_s: float = EVERY_S) -> None:
    """Return when kopf stops; raise ``Unavailable`` when one of its watchers has ended before."""
    known: set[str] = set()
    missing: set[str] = set()
    was_running = False
    while True:
        await asyncio.sleep(every_s)
        alive = {task.get_name() for task in asyncio.all_tasks() if not task.done()}
        if _RUNNING not in alive:
            if was_running:
                return
            continue
        was_running = True
        watchers = {name for name in alive if name.startswith(_WATCHER)}
        # One that is exchanged for another is away for a moment.
        dead = missing & (known - watchers)
        if dead:
            what = ", ".join(sorted(name.removeprefix(_WATCHER) for name in dead))
            raise Unavailable(f"no events come any more of {what}: the log has the reason")
        missing = known - watchers
        known |= watchers
