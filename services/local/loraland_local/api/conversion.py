"""Objects between the version they are stored in and the one a client asked for. No I/O."""

from __future__ import annotations

from typing import Any

from .kinds import ResourceType

Json = dict[str, Any]

# events.k8s.io spells the fields of a core Event differently.
_EVENT_FIELDS = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_CORE_FIELDS = {core: new for new, core in _EVENT_FIELDS.items()}


def to_stored(obj: Json, resource: ResourceType) -> Json:
    if resource.group == "events.k8s.io":
        renamed = {_EVENT_FIELDS.get(key, key): value for key, value in obj.items()}
        return {**renamed, "apiVersion": "v1"}
    if resource.custom is not None and resource.version != resource.custom.storage_version:
        return {**obj, "apiVersion": f"{resource.group}/{resource.custom.storage_version}"}
    return obj


def is_same_shape(resource: ResourceType) -> bool:
    """Tell whether stored objects can be sent as they are."""
    if resource.group == "events.k8s.io":
        return False
    return resource.custom is None or resource.version == resource.custom.storage_version


def from_stored(obj: Json, resource: ResourceType) -> Json:
    if is_same_shape(resource):
        return obj
    if resource.group == "events.k8s.io":
        renamed = {_CORE_FIELDS.get(key, key): value for key, value in obj.items()}
        return {**renamed, "apiVersion": resource.api_version}
    return {**obj, "apiVersion": resource.api_version}
