"""A kept-up-to-date copy of one kind, and whom to tell when an object changes.

A list is followed by a watch; a watch that ends is resumed where it stopped, and an expired one
(410) starts over with a list.
"""

import asyncio
import collections
import logging
import random
from collections.abc import Callable, Iterable

from loraland_local.apiclient import objects
from loraland_local.apiclient.cluster import METADATA_ONLY, METADATA_ONLY_EVENTS, Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.objects import Key, Object
from loraland_local.apiclient.resources import Resource

Listener = Callable[[Object], None]
"""Told the newest state of an object that was added, changed or removed."""

_log = logging.getLogger(__name__)

_WATCH_TIMEOUT_S = 300
_FIRST_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 10.0
_MAX_TOMBSTONES = 4096


class Informer:
    """The objects of one kind, by key."""

    def __init__(
        self, cluster: Cluster, resource: Resource, *, metadata_only: bool = False, **query: str
    ) -> None:
        self.resource = resource
        self._cluster = cluster
        self._query = query
        self._list_accept = METADATA_ONLY if metadata_only else "application/json"
        self._watch_accept = METADATA_ONLY_EVENTS if metadata_only else "application/json"
        self._objects: dict[Key, Object] = {}
        self._tombstones: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._listeners: list[Listener] = []
        self._synced = asyncio.Event()

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    def add_listener(self, listener: Listener) -> None:
        self._listeners.append(listener)
        for obj in self._objects.values():
            listener(obj)

    def get(self, key: Key) -> Object | None:
        return self._objects.get(key)

    def all(self) -> list[Object]:
        return list(self._objects.values())

    def in_namespace(self, namespace: str) -> list[Object]:
        return [found for (where, _), found in self._objects.items() if where == namespace]

    def remember(self, obj: Object) -> None:
        """Take in what a write of ours returned, so that the next decision already sees it."""
        if objects.uid(obj) in self._tombstones:
            return
        known = self._objects.get(objects.key(obj))
        if known is None or objects.resource_version(known) < objects.resource_version(obj):
            self._put(obj)

    def forget(self, obj: Object) -> None:
        """Take in that an object was found to be gone."""
        self._remove(obj)

    async def run(self) -> None:
        """Follow the kind until cancelled."""
        version = ""
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                if not version:
                    version = await self._relist()
                version = await self._follow(version)
                backoff_s = _FIRST_BACKOFF_S
            except ApiError as error:
                if error.is_gone:
                    version = ""
                    continue
                if error.is_not_found and self.is_synced:
                    self._replace([], 2**63)
                level = logging.DEBUG if error.status == 0 else logging.WARNING
                _log.log(level, "%s: %s; trying again", self.resource.plural, error)
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))  # noqa: S311 jitter
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
                # The connection may have missed a restart from an empty disk: look again.
                version = ""

    async def _relist(self) -> str:
        items, version = await self._cluster.list(
            self.resource, accept=self._list_accept, **self._query
        )
        self._replace(items, int(version) if version.isdecimal() else 0)
        self._synced.set()
        return version

    async def _follow(self, version: str) -> str:
        async for kind, obj in self._cluster.watch(
            self.resource,
            version,
            timeout_s=_WATCH_TIMEOUT_S,
            accept=self._watch_accept,
            **self._query,
        ):
            version = str(objects.metadata(obj).get("resourceVersion", version))
            if kind == "DELETED":
                self._remove(obj)
            elif kind in {"ADDED", "MODIFIED"}:
                self._put_if_newer(obj)
        return version

    def _replace(self, items: Iterable[Object], version: int) -> None:
        listed = {objects.key(item): item for item in items}
        for key, known in list(self._objects.items()):
            # What we wrote after the list was read is missing from it, and not gone.
            if key not in listed and objects.resource_version(known) <= version:
                self._remove(known)
        for item in listed.values():
            self._put_if_newer(item)

    def _put_if_newer(self, obj: Object) -> None:
        known = self._objects.get(objects.key(obj))
        is_same = known is not None and objects.uid(known) == objects.uid(obj)
        if known is not None and not is_same:
            # Deleted and made again while nobody watched.
            self._remove(known)
        if (
            known is None
            or not is_same
            or objects.resource_version(known) < objects.resource_version(obj)
        ):
            self._put(obj)

    def _put(self, obj: Object) -> None:
        self._objects[objects.key(obj)] = obj
        self._tell(obj)

    def _remove(self, obj: Object) -> None:
        self._tombstones[objects.uid(obj)] = None
        if len(self._tombstones) > _MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)
        known = self._objects.get(objects.key(obj))
        if known is not None and objects.uid(known) == objects.uid(obj):
            del self._objects[objects.key(obj)]
        self._tell(obj)

    def _tell(self, obj: Object) -> None:
        for listener in self._listeners:
            listener(obj)
