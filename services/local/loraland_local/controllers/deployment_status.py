"""A Deployment's numbers and conditions, as ``kubectl rollout status`` reads them. Pure, no I/O."""

import datetime as dt

from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object
from loraland_local.controllers import rolling_update


def build(
    deployment: Object,
    new: Object | None,
    replica_sets: list[Object],
    now: dt.datetime,
    *,
    is_created: bool,
) -> tuple[Object, float | None]:
    """Return the next status, and the seconds until its progress deadline has to be looked at."""
    numbers = _count(deployment, new, replica_sets)
    before = deployment.get("status") or {}
    status: Object = {
        "observedGeneration": objects.metadata(deployment).get("generation", 1),
        **{field: number for field, number in numbers.items() if number},
    }
    if "collisionCount" in before:
        status["collisionCount"] = before["collisionCount"]
    conditions = _set_available(list(before.get("conditions") or []), deployment, numbers, now)
    conditions, wait_s = _set_progressing(
        conditions, deployment, new, status, now, is_created=is_created
    )
    status["conditions"] = conditions
    return status, wait_s


def is_complete(deployment: Object, status: Object) -> bool:
    desired = int(deployment["spec"].get("replicas", 1))
    fields = ("replicas", "updatedReplicas", "availableReplicas")
    return all(int(status.get(field, 0)) == desired for field in fields)


def _count(deployment: Object, new: Object | None, replica_sets: list[Object]) -> dict[str, int]:
    def total(field: str) -> int:
        return sum(int((found.get("status") or {}).get(field, 0)) for found in replica_sets)

    available = total("availableReplicas")
    wanted = sum(int(found["spec"].get("replicas", 0)) for found in replica_sets)
    if not replica_sets and new is not None:
        wanted = int(deployment["spec"].get("replicas", 1))
    return {
        "replicas": total("replicas"),
        "updatedReplicas": int(((new or {}).get("status") or {}).get("replicas", 0)),
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(wanted - available, 0),
    }


def _set_available(
    conditions: list[Object],
    deployment: Object,
    numbers: dict[str, int],
    now: dt.datetime,
) -> list[Object]:
    desired = int(deployment["spec"].get("replicas", 1))
    strategy = deployment["spec"].get("strategy") or {}
    unavailable = 0
    if strategy.get("type") != "Recreate":
        rolling = strategy.get("rollingUpdate") or {}
        _, unavailable = rolling_update.bounds(
            rolling.get("maxSurge", "25%"), rolling.get("maxUnavailable", "25%"), desired
        )
    if numbers["availableReplicas"] >= desired - unavailable:
        state, reason, verb = "True", "MinimumReplicasAvailable", "has"
    else:
        state, reason, verb = "False", "MinimumReplicasUnavailable", "does not have"
    message = f"Deployment {verb} minimum availability."
    return _with(conditions, "Available", state, reason, message, now=now)


def _set_progressing(
    conditions: list[Object],
    deployment: Object,
    new: Object | None,
    status: Object,
    now: dt.datetime,
    *,
    is_created: bool,
) -> tuple[list[Object], float | None]:
    subject = (
        f'ReplicaSet "{objects.name(new)}"'
        if new is not None
        else f'Deployment "{objects.name(deployment)}"'
    )
    found = next((c for c in conditions if c["type"] == "Progressing"), None)
    if is_created and new is not None:
        message = f'Created new replica set "{objects.name(new)}"'
        moved = _with(
            conditions, "Progressing", "True", "NewReplicaSetCreated", message, now=now, touch=True
        )
        return moved, _deadline_s(deployment)
    if is_complete(deployment, status):
        message = f"{subject} has successfully progressed."
        return (
            _with(conditions, "Progressing", "True", "NewReplicaSetAvailable", message, now=now),
            None,
        )
    was_complete = found is not None and found.get("reason") == "NewReplicaSetAvailable"
    if found is None or _has_progressed(deployment.get("status") or {}, status) or was_complete:
        message = f"{subject} is progressing."
        moved = _with(
            conditions, "Progressing", "True", "ReplicaSetUpdated", message, now=now, touch=True
        )
        return moved, _deadline_s(deployment)
    return _judge_deadline(conditions, found, deployment, subject, now)


def _judge_deadline(
    conditions: list[Object],
    found: Object,
    deployment: Object,
    subject: str,
    now: dt.datetime,
) -> tuple[list[Object], float | None]:
    updated = objects.parse_time(found.get("lastUpdateTime")) or now
    left_s = _deadline_s(deployment) - (now - updated).total_seconds()
    if left_s > 0 or found.get("status") == "False" or deployment["spec"].get("paused"):
        return conditions, left_s if left_s > 0 else None
    message = f"{subject} has timed out progressing."
    return (
        _with(conditions, "Progressing", "False", "ProgressDeadlineExceeded", message, now=now),
        None,
    )


def _deadline_s(deployment: Object) -> float:
    return float(deployment["spec"].get("progressDeadlineSeconds", 600))


def _has_progressed(before: Object, after: Object) -> bool:
    def number(status: Object, field: str) -> int:
        return int(status.get(field, 0))

    old_before = number(before, "replicas") - number(before, "updatedReplicas")
    old_after = number(after, "replicas") - number(after, "updatedReplicas")
    return old_after < old_before or any(
        number(after, field) > number(before, field)
        for field in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )


def _with(
    conditions: list[Object],
    kind: str,
    state: str,
    reason: str,
    message: str,
    *,
    now: dt.datetime,
    touch: bool = False,
) -> list[Object]:
    found = next((c for c in conditions if c["type"] == kind), None)
    is_same = found is not None and (found.get("status"), found.get("reason")) == (state, reason)
    if found is not None and is_same and found.get("message") == message and not touch:
        return conditions
    return objects.with_condition(
        conditions,
        kind,
        state,
        now=now,
        reason=reason,
        message=message,
        lastUpdateTime=objects.format_time(now),
    )
