"""Watches: from a version on, or from what there is now, until the client has enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from . import conversion, errors, lists, selectors
from .kinds import ResourceType
from .storage import Event, Store, encode

Json = dict[str, Any]
Render = Callable[[Json], Any]

BOOKMARK_EVERY_S = 30.0
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Watch:
    """One client's view of one resource's changes."""

    def __init__(
        self,
        store: Store,
        resource: ResourceType,
        namespace: str,
        query: Mapping[str, str],
        render: Render,
    ) -> None:
        self._store = store
        self._resource = resource
        self._namespace = namespace
        self._match: selectors.Match | None = lists.match(query, resource)
        self._render = render
        self._bookmarks = query.get("allowWatchBookmarks") in {"true", "1"}
        self._initial = query.get("sendInitialEvents") in {"true", "1"}
        self._since_version = lists.number(query, "resourceVersion")

    def _selects(self, obj: Json) -> bool:
        if self._namespace and obj["metadata"].get("namespace") != self._namespace:
            return False
        return self._match is None or self._match(obj)

    def _line(self, kind: str, obj: Json) -> bytes:
        shown = self._render(conversion.from_stored(obj, self._resource))
        return encode({"type": kind, "object": shown}) + b"\n"

    def _bookmark(self, version: int, *, initial_end: bool = False) -> bytes:
        """Promise that everything up to a version has been sent."""
        metadata: Json = {"resourceVersion": str(version)}
        if initial_end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        obj = {
            "kind": self._resource.kind,
            "apiVersion": self._resource.api_version,
            "metadata": metadata,
        }
        return encode({"type": "BOOKMARK", "object": obj}) + b"\n"

    def _change(self, event: Event) -> bytes | None:
        """Write an event as this watch sees it: an object may enter or leave the selection."""
        after = event.type != "DELETED" and self._selects(event.obj)
        before = event.old is not None and self._selects(event.old)
        if after:
            return self._line("MODIFIED" if before else "ADDED", event.obj)
        if not before:
            return None
        if event.type == "DELETED":
            return self._line("DELETED", event.obj)
        version = event.obj["metadata"]["resourceVersion"]
        assert event.old is not None
        meta = {**event.old["metadata"], "resourceVersion": version}
        return self._line("DELETED", {**event.old, "metadata": meta})

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield one JSON line per event; ends only when the caller stops asking."""
        shelf = self._store.shelf(self._resource.storage_key)
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        shelf.watchers.add(queue)
        try:
            since = self._since_version
            if self._initial or not since:
                # Both are taken before the first line goes out: later events are in the queue.
                since = self._store.version
                found = list(self._store.objects(self._resource.storage_key, self._namespace))
                for obj in found:
                    if self._selects(obj):
                        yield self._line("ADDED", obj)
                if self._initial and self._bookmarks:
                    yield self._bookmark(since, initial_end=True)
            elif since < shelf.floor:
                message = f"too old resource version: {since} ({shelf.floor})"
                yield encode({"type": "ERROR", "object": errors.expired(message).status()}) + b"\n"
                return
            else:
                for event in [event for event in shelf.log if event.version > since]:
                    line = self._change(event)
                    since = event.version
                    if line:
                        yield line
            async for line in self._follow(queue, since):
                yield line
        finally:
            shelf.watchers.discard(queue)

    async def _follow(self, queue: asyncio.Queue[Event | None], since: int) -> AsyncIterator[bytes]:
        while True:
            try:
                # Not wait_for: before Python 3.12 it can swallow the cancellation that ends us.
                async with asyncio.timeout(BOOKMARK_EVERY_S):
                    event = await queue.get()
            except TimeoutError:
                if self._bookmarks and queue.empty():
                    yield self._bookmark(self._store.version)
                continue
            if event is None:
                return
            if event.version <= since:
                continue
            line = self._change(event)
            if line:
                yield line
