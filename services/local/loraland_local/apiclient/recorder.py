"""Writes Kubernetes Events, folding repetitions into one object's count.

Events are a courtesy: a failure to write one is logged and otherwise ignored.
"""

import asyncio
import collections
import datetime as dt
import hashlib
import logging

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import ApiError, Cluster
from loraland_local.apiclient.objects import Event, Object

_log = logging.getLogger(__name__)
_MAX_REMEMBERED = 1024


class Recorder:
    """Records events under one component's name."""

    def __init__(self, cluster: Cluster, component: str, host: str = "") -> None:
        self._cluster = cluster
        self._source = {"component": component, **({"host": host} if host else {})}
        self._pending: set[asyncio.Task[None]] = set()
        self._in_order = asyncio.Lock()
        self._counts: collections.OrderedDict[str, int] = collections.OrderedDict()

    def submit(self, about: Object, *, api_version: str, kind: str, event: Event) -> None:
        """Record in the background: a container's start does not wait for its news."""

        async def record() -> None:
            async with self._in_order:
                await self.record(about, api_version=api_version, kind=kind, event=event)

        task = asyncio.create_task(record())
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def flush(self, timeout_s: float) -> None:
        """Give the last events a moment to be written."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=timeout_s)

    async def record(self, about: Object, *, api_version: str, kind: str, event: Event) -> None:
        now = objects.format_time(dt.datetime.now(tz=dt.UTC))
        reference = {
            "apiVersion": api_version,
            "kind": kind,
            "name": objects.name(about),
            "uid": objects.uid(about),
            **({"namespace": objects.namespace(about)} if objects.namespace(about) else {}),
            **({"fieldPath": event.field_path} if event.field_path else {}),
        }
        namespace = objects.namespace(about) or "default"
        name = f"{objects.name(about)}.{_fingerprint(reference, event)}"
        try:
            if name in self._counts and await self._count_up(namespace, name, now):
                return
            await self._cluster.create(
                resources.EVENTS, namespace, self._build(name, namespace, reference, event, now)
            )
            self._counts[name] = 1
            if len(self._counts) > _MAX_REMEMBERED:
                self._counts.popitem(last=False)
        except ApiError as error:
            if not error.is_already_there:
                _log.debug("event %s of %s: %s", event.reason, objects.name(about), error)

    async def _count_up(self, namespace: str, name: str, now: str) -> bool:
        self._counts[name] += 1
        body = {"count": self._counts[name], "lastTimestamp": now}
        try:
            await self._cluster.patch(resources.EVENTS, namespace, name, body)
        except ApiError as error:
            if error.is_not_found:
                return False
            raise
        return True

    def _build(
        self, name: str, namespace: str, reference: Object, event: Event, now: str
    ) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": reference,
            "reason": event.reason,
            "message": event.message[:1024],
            "type": event.kind,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": self._source,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
        }


def _fingerprint(reference: Object, event: Event) -> str:
    text = objects.canonical_json([reference, event.kind, event.reason, event.message])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
