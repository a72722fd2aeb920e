"""Watches the registry: reads heartbeats, and publishes everything again when Redis lost it.

One sweep every few seconds for all base models; it wakes only the Adapters whose replicas say
something new.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping

from loraland_core import conditions
from loraland_core.errors import LoraLandError, Unavailable
from loraland_core.keys import HEARTBEAT_TTL_S, AdapterRecord
from loraland_core.names import AdapterCondition
from loraland_core.resources import Adapter
from pydantic import ValidationError

from loraland_operator import cluster as kubernetes
from loraland_operator.base_models import BaseModels
from loraland_operator.cluster import Cluster
from loraland_operator.mirror import Key, Mirror, Object, key_of
from loraland_operator.plan import adapter as planning
from loraland_operator.plan import fleet
from loraland_operator.plan.fleet import Fleet
from loraland_operator.registry import Registry

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 2.0
# A restart of Redis is no news; one that lasts longer shows in conditions.
GRACE_S = 10.0


class Fleets:
    """The replicas of each base model as the last sweep saw them."""

    def __init__(
        self,
        *,
        registry: Registry,
        cluster: Cluster,
        mirror: Mirror,
        base_models: BaseModels,
        namespaces: tuple[str, ...],
        wake: Callable[[Key], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._cluster = cluster
        self._mirror = mirror
        self._base_models = base_models
        self._namespaces = namespaces
        self._wake = wake
        self._clock = clock
        self._fleets: dict[str, Fleet] = {}
        self._failing_since: dict[str, float] = {}
        self._problems: dict[str, str] = {}
        self._published_at: dict[str, float] = {}
        # Base models whose Adapters say that the registry is away.
        self._told: set[str] = set()

    def current(self, base_model: str) -> Fleet:
        """Return the live replicas; raise ``Unavailable`` before the first look at them."""
        seen = self._fleets.get(base_model)
        if seen is None:
            raise Unavailable(f"the replicas of {base_model} are not known yet", retry_after_s=0.5)
        return seen

    def problem(self, base_model: str) -> str:
        """Return why the registry cannot be used; empty for a short while and when all is well."""
        since = self._failing_since.get(base_model)
        if since is None or self._clock() - since < GRACE_S:
            return ""
        return self._problems[base_model]

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            for base_model in self._base_models.names:
                await self.sweep(base_model)
            await asyncio.sleep(SWEEP_EVERY_S)

    async def sweep(self, base_model: str) -> None:
        """Look at one base model; what fails is tried again with the next sweep."""
        try:
            is_intact = await self._registry.read_is_intact(base_model)
            if not is_intact:
                log.info("publishing the registry of %s", base_model)
                await self._registry.publish(base_model, lambda: self._collect(base_model))
                self._published_at[base_model] = self._clock()
            seen = await self._registry.read_fleet(base_model)
        except Unavailable as error:
            self._note_problem(base_model, error)
            return
        except LoraLandError:
            log.exception("the registry of %s cannot be swept", base_model)
            return
        # Whoever waited for the registry, or was told that it is away, looks again; and where Redis
        # lost a removal, only the Adapter's own plan knows.
        everyone = not is_intact or base_model in self._told or base_model not in self._fleets
        self._told.discard(base_model)
        self._failing_since.pop(base_model, None)
        before = self._fleets.get(base_model, Fleet())
        if self._may_be_incomplete(base_model, seen, before):
            seen = before
        is_news = _fingerprint(seen) != _fingerprint(before)
        self._fleets[base_model] = seen
        self._wake_adapters(base_model, everyone=everyone, is_news=is_news)

    def _may_be_incomplete(self, base_model: str, seen: Fleet, before: Fleet) -> bool:
        """Return whether a Redis that lost everything waits for heartbeats to come in again."""
        age_s = self._clock() - self._published_at.get(base_model, -math.inf)
        return len(seen.beats) < len(before.beats) and age_s < HEARTBEAT_TTL_S

    def _note_problem(self, base_model: str, error: Unavailable) -> None:
        self._problems[base_model] = str(error)
        self._failing_since.setdefault(base_model, self._clock())
        log.warning("registry of %s: %s", base_model, error)
        if self.problem(base_model) and base_model not in self._told:
            self._told.add(base_model)
            self._wake_adapters(base_model, everyone=True, is_news=True)

    async def _collect(self, base_model: str) -> tuple[Mapping[str, AdapterRecord], set[str]]:
        """Return the records that the Adapters there are ask for, read from the API server."""
        wanted: dict[str, AdapterRecord] = {}
        known: set[str] = set()
        for namespace in self._namespaces or ("",):
            for obj in await self._cluster.list(kubernetes.ADAPTERS, namespace):
                if obj["spec"].get("baseModel") != base_model:
                    continue
                id_ = fleet.adapter_id(obj["metadata"]["namespace"], obj["metadata"]["name"])
                known.add(id_)
                adapter = _parse(obj)
                if adapter is None:
                    continue
                record = planning.build_record(adapter)
                if record is not None:
                    wanted[id_] = planning.keep_revision(adapter, record)
        return wanted, known

    def _wake_adapters(self, base_model: str, *, everyone: bool, is_news: bool) -> None:
        for obj in self._mirror.of_kind(kubernetes.ADAPTERS.kind):
            if obj["spec"].get("baseModel") != base_model:
                continue
            if everyone or self._is_outdated(obj, base_model, is_news=is_news):
                self._wake(key_of(obj))

    def _is_outdated(self, obj: Object, base_model: str, *, is_news: bool) -> bool:
        """Return whether the status says something else than registry and replicas do."""
        id_ = fleet.adapter_id(obj["metadata"]["namespace"], obj["metadata"]["name"])
        record = self._registry.find_record(base_model, id_)
        remembered = (obj.get("status") or {}).get("registeredRevision")
        if record is None or remembered is None:
            return record is not None or remembered is not None
        if not is_news and str(record.revision) == remembered:
            return False
        adapter = _parse(obj)
        if adapter is None:
            return False
        status = adapter.status
        ready = conditions.find_condition(status.conditions, AdapterCondition.READY)
        told = None if ready is None else (ready.status, ready.reason, ready.message)
        seen = self.current(base_model)
        judged = fleet.judge(seen, id_, record)
        is_told = told == ("True" if judged.is_ready else "False", judged.reason, judged.message)
        return not is_told or fleet.build_instances(seen, id_) != (status.instances or [])


def _parse(obj: Object) -> Adapter | None:
    """Return the Adapter; None for one that another release has stored, which stops no other."""
    try:
        return Adapter.model_validate(obj)
    except ValidationError as error:
        metadata = obj["metadata"]
        log.warning(
            "Adapter %s/%s cannot be read: %s", metadata["namespace"], metadata["name"], error
        )
        return None


def _fingerprint(seen: Fleet) -> object:
    """Return what in heartbeats matters to an Adapter's status."""
    beats = [(b.replica, b.applied_revision, b.rejected) for b in seen.beats]
    return beats, [(r.replica, r.adapters) for r in seen.residencies]
