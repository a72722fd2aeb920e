"""What users see: the status that a plan asks for, and its events."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from loraland_core import conditions, names
from loraland_core.errors import LoraLandError

from loraland_operator.cluster import Cluster, Object, Resource
from loraland_operator.mirror import Mirror
from loraland_operator.plan.steps import Note

log = logging.getLogger(__name__)

MAX_EVENT_MESSAGE_LENGTH = 1024


async def write(
    cluster: Cluster,
    mirror: Mirror,
    resource: Resource,
    obj: Mapping[str, Any],
    *,
    status: Mapping[str, Any],
    notes: Sequence[Note],
    now: datetime,
) -> None:
    """Post the events, then write the status if it differs from the one in ``obj``.

    In this order an operator that dies in between repeats an event, which is counted, not lost.
    """
    change = build_merge_patch(obj.get("status") or {}, status)
    for note in notes:
        told = f"{obj['kind']} {obj['metadata']['namespace']}/{obj['metadata']['name']}"
        log.info("%s %s: %s", told, note.reason, note.message)
        try:
            await cluster.create_event(build_event(obj, note, now))
        except LoraLandError as error:
            log.warning("event %s of %s is lost: %s", note.reason, obj["metadata"]["name"], error)
    if change:
        mirror.put(await cluster.patch(resource, obj, {"status": change}, subresource="status"))


def build_merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> Object:
    """Return the JSON merge patch from one to the other; empty if they are the same."""
    patch: Object = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif isinstance(value, Mapping) and isinstance(before[key], Mapping):
            inner = build_merge_patch(before[key], value)
            if inner:
                patch[key] = inner
        elif value != before[key]:
            patch[key] = value
    return patch


def build_event(obj: Mapping[str, Any], note: Note, now: datetime) -> Object:
    """Return a core/v1 Event whose name follows from what it says, so that it stands once."""
    metadata = obj["metadata"]
    message = note.message[:MAX_EVENT_MESSAGE_LENGTH] or note.reason
    said = "\0".join((metadata["uid"], str(metadata.get("generation")), note.reason, message))
    digest = hashlib.sha256(said.encode()).hexdigest()
    time = conditions.timestamp(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{note.order:x}{digest[:15]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": note.type,
        "reason": note.reason,
        "message": message,
        "source": {"component": names.MANAGER_OPERATOR},
        "reportingComponent": names.MANAGER_OPERATOR,
        "reportingInstance": names.MANAGER_OPERATOR,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
