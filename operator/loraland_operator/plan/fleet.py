"""The replicas of one base model, as their heartbeats tell, and what they make of an adapter. Pure."""

from dataclasses import dataclass

from loraland_core.keys import AdapterRecord, Heartbeat, Residency
from loraland_core.names import Reason
from loraland_core.resources.adapter import Instance, ReplicaCount

MAX_INSTANCES = 64
MAX_TEXT_LENGTH = 1024


@dataclass(frozen=True)
class Fleet:
    """Live replicas only: a heartbeat that ran out is not here."""

    beats: tuple[Heartbeat, ...] = ()
    residencies: tuple[Residency, ...] = ()


@dataclass(frozen=True)
class Readiness:
    """Whether an adapter can be asked for, and why not."""

    is_ready: bool
    reason: Reason
    message: str
    replicas: ReplicaCount


def adapter_id(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def judge(fleet: Fleet, id_: str, record: AdapterRecord) -> Readiness:
    """Return what the replicas say about this very record.

    Ready means that a live replica has applied it and does not reject it; not that it is resident.
    """
    total = len(fleet.beats)
    applied = [b for b in fleet.beats if b.applied_revision >= record.revision]
    objections = [
        (b.replica, b.rejected[id_])
        for b in applied
        if id_ in b.rejected and b.rejected[id_].digest == record.digest
    ]
    ready = len(applied) - len(objections)
    count = ReplicaCount(ready=ready, total=total)
    if ready:
        return Readiness(True, Reason.SERVING, f"{ready} of {total} replicas serve it", count)
    if objections:
        replica, rejection = objections[0]
        message = f"{replica}: {rejection.reason}: {rejection.message}"
        return Readiness(False, Reason.REJECTED_BY_REPLICA, message, count)
    if not total:
        message = f"no replica of {record.base_model} is alive"
        return Readiness(False, Reason.NO_LIVE_REPLICA, message, count)
    message = f"none of {total} replicas has read the record yet"
    return Readiness(False, Reason.WAITING_FOR_REPLICAS, message, count)


def build_instances(fleet: Fleet, id_: str) -> list[Instance]:
    """Return where the adapter is resident or rejected, in the order of the replicas' names."""
    found: dict[str, Instance] = {}
    for residency in fleet.residencies:
        resident = residency.adapters.get(id_)
        if resident:
            found[residency.replica] = Instance(
                replica=residency.replica,
                tier=resident.tier,
                digest=resident.digest,
                error=resident.error[:MAX_TEXT_LENGTH] if resident.error else None,
            )
    for beat in fleet.beats:
        rejection = beat.rejected.get(id_)
        if rejection:
            error = f"{rejection.reason}: {rejection.message}"[:MAX_TEXT_LENGTH]
            found[beat.replica] = Instance(
                replica=beat.replica, digest=rejection.digest, error=error
            )
    return [found[replica] for replica in sorted(found)][:MAX_INSTANCES]
