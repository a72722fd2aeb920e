"""Writes a pod's status whenever it changed; the only place that does."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet.context import now_utc

BuildStatus = Callable[[Object, dt.datetime], Object]

_log = logging.getLogger(__name__)
_GATHER_S = 0.03
_RETRY_S = 1.0
_MAX_CONFLICTS = 10


class StatusWriter:
    """Holds the pod as it is in the API, and brings its status there."""

    def __init__(self, cluster: Cluster, pod: Object) -> None:
        self.pod = pod
        self._cluster = cluster
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._is_closed = False

    def accept(self, pod: Object) -> None:
        """Take in a newer state of the pod."""
        if objects.resource_version(pod) >= objects.resource_version(self.pod):
            self.pod = pod

    def notice(self) -> None:
        """Take in that something about the pod has changed here."""
        self._changed.set()

    def close(self) -> None:
        """Write nothing any more: the pod's next kubelet will tell what became of it."""
        self._is_closed = True

    async def run(self, build: BuildStatus) -> None:
        """Write changes as they come, until cancelled."""
        while True:
            await self._changed.wait()
            # Several things often change together.
            await asyncio.sleep(_GATHER_S)
            self._changed.clear()
            try:
                await self.write(build)
            except ApiError as error:
                _log.warning("status of pod %s: %s", objects.name(self.pod), error)
                self._changed.set()
                await asyncio.sleep(_RETRY_S)

    async def write(self, build: BuildStatus) -> None:
        """Write the status as it is now, on top of whatever others wrote meanwhile."""
        async with self._writing:
            for _ in range(_MAX_CONFLICTS):
                wanted = build(self.pod, now_utc())
                if self._is_closed or wanted == self.pod.get("status"):
                    return
                body = {**self.pod, "status": wanted}
                try:
                    self.accept(await self._cluster.replace(resources.PODS, body, "status"))
                except ApiError as error:
                    if error.is_not_found:
                        return
                    if not error.is_conflict:
                        raise
                    if not await self._read_again():
                        return
                else:
                    return

    async def _read_again(self) -> bool:
        found = await self._cluster.get_or_none(resources.PODS, *objects.key(self.pod))
        if found is None or objects.uid(found) != objects.uid(self.pod):
            return False
        self.pod = found
        return True
