"""Writes Kubernetes Events, folding repetitions into one object's count.

Events are a courtesy: a failure to write one is logged and otherwise ignored.
"""

import asyncio
import collections
import dataclasses
import datetime as dt
import logging
import time

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.objects import Event, Object

_log = logging.getLogger(__name__)
_MAX_REMEMBERED = 1024


@dataclasses.dataclass
class _Known:
    """An event that was written before."""

    name: str
    count: int = 1


class Recorder:
    """Records events under one component's name."""

    def __init__(self, cluster: Cluster, component: str, host: str = "") -> None:
        self._cluster = cluster
        self._source = {"component": component, **({"host": host} if host else {})}
        self._pending: set[asyncio.Task[None]] = set()
        self._in_order = asyncio.Lock()
        self._known: collections.OrderedDict[str, _Known] = collections.OrderedDict()

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
        fingerprint = objects.canonical_json([reference, event.kind, event.reason, event.message])
        try:
            known = self._known.get(fingerprint)
            if known is not None and await self._count_up(namespace, known, now):
                return
            # As with the real recorder, names in their order tell the order of events.
            name = f"{objects.name(about)}.{time.time_ns():x}"
            body = self._build(name, namespace, reference, event, now)
            await self._cluster.create(resources.EVENTS, namespace, body)
            self._known[fingerprint] = _Known(name)
            if len(self._known) > _MAX_REMEMBERED:
                self._known.popitem(last=False)
        except ApiError as error:
            _log.debug("event %s of %s: %s", event.reason, objects.name(about), error)

    async def _count_up(self, namespace: str, known: "_Known", now: str) -> bool:
        known.count += 1
        body = {"count": known.count, "lastTimestamp": now}
        try:
            await self._cluster.patch(resources.EVENTS, namespace, known.name, body)
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
