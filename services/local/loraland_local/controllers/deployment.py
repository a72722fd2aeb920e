"""What a Deployment needs next. Pure: ``plan(deployment, replica_sets, now) -> Plan``, no I/O."""

import copy
import dataclasses
import datetime as dt

from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Event, Object
from loraland_local.controllers import deployment_status, rolling_update
from loraland_local.controllers.rolling_update import Replicas

REVISION = "deployment.kubernetes.io/revision"
_DESIRED = "deployment.kubernetes.io/desired-replicas"
_MAXIMUM = "deployment.kubernetes.io/max-replicas"
_HASH_LABEL = "pod-template-hash"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to do, in this order: ReplicaSets, the own revision annotation, status, events."""

    create: tuple[Object, ...] = ()
    replace: tuple[Object, ...] = ()
    delete: tuple[Object, ...] = ()
    revision: str | None = None
    status: Object | None = None
    events: tuple[Event, ...] = ()
    requeue_after_s: float | None = None


def plan(deployment: Object, replica_sets: list[Object], now: dt.datetime) -> Plan:
    """Decide from the ReplicaSets that the deployment owns."""
    ordered = sorted(replica_sets, key=lambda found: (_revision(found), _created(found)))
    new = find_new(deployment, ordered)
    old = [found for found in ordered if found is not new]
    is_idle = objects.is_deleting(deployment)
    is_paused = bool(deployment["spec"].get("paused"))
    events: list[Event] = []
    create: tuple[Object, ...] = ()
    replace: list[Object] = []
    if is_idle or is_paused:
        replace = [] if is_idle else _scale_paused(deployment, ordered, events)
    elif new is None:
        create = (_build_new(deployment, old, events),)
    else:
        replace = _roll(deployment, new, old, events)
    status, wait_s = deployment_status.build(
        deployment, create[0] if create else new, ordered, now, is_created=bool(create)
    )
    current = create[0] if create else next((r for r in replace if _is_same(r, new)), new)
    revision = objects.annotations(current).get(REVISION) if current else None
    is_settled = not is_idle and deployment_status.is_complete(deployment, status)
    return Plan(
        create=create,
        replace=tuple(replace),
        delete=tuple(_outdated(deployment, old)) if is_settled else (),
        revision=None if objects.annotations(deployment).get(REVISION) == revision else revision,
        status=None if status == (deployment.get("status") or {}) else status,
        events=tuple(events),
        requeue_after_s=wait_s,
    )


def template_hash(deployment: Object) -> str:
    return objects.random_suffix(objects.canonical_json(deployment["spec"]["template"]), 10)


def find_new(deployment: Object, replica_sets: list[Object]) -> Object | None:
    """Return the set that runs the deployment's present template."""
    wanted = objects.canonical_json(_without_hash(deployment["spec"]["template"]))
    for found in replica_sets:
        if objects.canonical_json(_without_hash(found["spec"]["template"])) == wanted:
            return found
    return None


def _without_hash(template: Object) -> Object:
    meta = dict(template.get("metadata") or {})
    meta.pop("creationTimestamp", None)
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != _HASH_LABEL}
    return {**template, "metadata": {**meta, "labels": labels}}


def _revision(replica_set: Object) -> int:
    found = objects.annotations(replica_set).get(REVISION, "0")
    return int(found) if found.isdecimal() else 0


def _created(obj: Object) -> str:
    return str(objects.metadata(obj).get("creationTimestamp", ""))


def _is_same(one: Object, other: Object | None) -> bool:
    return other is not None and objects.name(one) == objects.name(other)


def _desired(deployment: Object) -> int:
    return int(deployment["spec"].get("replicas", 1))


def _bounds(deployment: Object) -> tuple[int, int]:
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, _desired(deployment)
    rolling = strategy.get("rollingUpdate") or {}
    return rolling_update.bounds(
        rolling.get("maxSurge", "25%"), rolling.get("maxUnavailable", "25%"), _desired(deployment)
    )


def _replicas(replica_set: Object) -> Replicas:
    status = replica_set.get("status") or {}
    return Replicas(
        spec=int(replica_set["spec"].get("replicas", 0)),
        existing=int(status.get("replicas", 0)),
        available=int(status.get("availableReplicas", 0)),
    )


def _next_new_size(deployment: Object, size: int, old: list[Object]) -> int:
    counted = [_replicas(found) for found in old]
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        is_clear = not any(replicas.spec or replicas.existing for replicas in counted)
        return _desired(deployment) if is_clear else min(size, _desired(deployment))
    surge, _ = _bounds(deployment)
    return rolling_update.grow_new(_desired(deployment), size, counted, surge=surge)


def _build_new(deployment: Object, old: list[Object], events: list[Event]) -> Object:
    hashed = template_hash(deployment)
    template = copy.deepcopy(deployment["spec"]["template"])
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels[_HASH_LABEL] = hashed
    selector = copy.deepcopy(deployment["spec"]["selector"])
    selector.setdefault("matchLabels", {})[_HASH_LABEL] = hashed
    name = f"{objects.name(deployment)}-{hashed}"
    size = _next_new_size(deployment, 0, old)
    events.append(_scaling_event("up", name, 0, size))
    revision = max((_revision(found) for found in old), default=0) + 1
    reference = objects.controller_reference(deployment, api_version="apps/v1", kind="Deployment")
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": objects.namespace(deployment),
            "labels": dict(labels),
            "annotations": _build_annotations(deployment, revision),
            "ownerReferences": [reference],
        },
        "spec": {
            "replicas": size,
            "minReadySeconds": int(deployment["spec"].get("minReadySeconds", 0)),
            "selector": selector,
            "template": template,
        },
    }


def _build_annotations(deployment: Object, revision: int) -> dict[str, str]:
    surge, _ = _bounds(deployment)
    own = {k: v for k, v in objects.annotations(deployment).items() if k != _LAST_APPLIED}
    return {
        **own,
        REVISION: str(revision),
        _DESIRED: str(_desired(deployment)),
        _MAXIMUM: str(_desired(deployment) + surge),
    }


def _roll(deployment: Object, new: Object, old: list[Object], events: list[Event]) -> list[Object]:
    """Move one step towards the new set: first it grows, then the others shrink."""
    last = max((_revision(found) for found in old), default=0)
    revision = _revision(new) if _revision(new) > last else last + 1
    size = _next_new_size(deployment, _replicas(new).spec, old)
    updated = _resized(new, size, events)
    updated["metadata"]["annotations"] = {
        **objects.annotations(new),
        **_build_annotations(deployment, revision),
    }
    changed = [] if updated == new else [updated]
    if size == _replicas(new).spec and old:
        _, unavailable = _bounds(deployment)
        sizes = rolling_update.shrink_old(
            _desired(deployment),
            _replicas(new),
            [_replicas(found) for found in old],
            unavailable=unavailable,
        )
        for found, next_size in zip(old, sizes, strict=True):
            if next_size != _replicas(found).spec:
                changed.append(_resized(found, next_size, events))
    return changed


def _scale_paused(
    deployment: Object, replica_sets: list[Object], events: list[Event]
) -> list[Object]:
    """Follow ``spec.replicas`` while a rollout is paused, if one set alone has pods."""
    used = [found for found in replica_sets if _replicas(found).spec > 0]
    if len(used) != 1 or _replicas(used[0]).spec == _desired(deployment):
        return []
    return [_resized(used[0], _desired(deployment), events)]


def _resized(replica_set: Object, size: int, events: list[Event]) -> Object:
    before = _replicas(replica_set).spec
    if size != before:
        direction = "up" if size > before else "down"
        events.append(_scaling_event(direction, objects.name(replica_set), before, size))
    updated = copy.deepcopy(replica_set)
    updated["spec"]["replicas"] = size
    return updated


def _scaling_event(direction: str, name: str, before: int, after: int) -> Event:
    message = f"Scaled {direction} replica set {name} from {before} to {after}"
    return Event("Normal", "ScalingReplicaSet", message)


def _outdated(deployment: Object, old: list[Object]) -> list[Object]:
    limit = int(deployment["spec"].get("revisionHistoryLimit", 10))
    unused = [
        found
        for found in old
        if not _replicas(found).spec
        and not _replicas(found).existing
        and not objects.is_deleting(found)
    ]
    return unused[: max(len(unused) - limit, 0)]
