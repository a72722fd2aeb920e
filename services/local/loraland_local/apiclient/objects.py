"""Reading and building API objects as plain dictionaries. Pure, no I/O.

Objects stay what the API sent (JSON), so that one piece of code serves built-in kinds and custom
resources alike; these functions name the few places that everybody reads.
"""

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace (empty for cluster-scoped objects) and name."""

_SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' alphabet for generated names: no vowels, so that no words appear by chance."""


@dataclasses.dataclass(frozen=True)
class Event:
    """What a controller wants to tell about an object."""

    kind: str  # Normal | Warning
    reason: str
    message: str
    field_path: str = ""


def metadata(obj: Mapping[str, Any]) -> Object:
    found: Object = obj.get("metadata") or {}
    return found


def name(obj: Mapping[str, Any]) -> str:
    return str(metadata(obj).get("name", ""))


def namespace(obj: Mapping[str, Any]) -> str:
    return str(metadata(obj).get("namespace", ""))


def uid(obj: Mapping[str, Any]) -> str:
    return str(metadata(obj).get("uid", ""))


def key(obj: Mapping[str, Any]) -> Key:
    return namespace(obj), name(obj)


def resource_version(obj: Mapping[str, Any]) -> int:
    """Return the version as a number; since Kubernetes 1.35 versions of one kind compare so."""
    found = str(metadata(obj).get("resourceVersion", "") or "0")
    return int(found) if found.isdecimal() else 0


def is_deleting(obj: Mapping[str, Any]) -> bool:
    return bool(metadata(obj).get("deletionTimestamp"))


def labels(obj: Mapping[str, Any]) -> dict[str, str]:
    return dict(metadata(obj).get("labels") or {})


def annotations(obj: Mapping[str, Any]) -> dict[str, str]:
    return dict(metadata(obj).get("annotations") or {})


def finalizers(obj: Mapping[str, Any]) -> list[str]:
    return list(metadata(obj).get("finalizers") or [])


def controller_of(obj: Mapping[str, Any]) -> Object | None:
    """Return the owner reference that is marked as the controller, if there is one."""
    for reference in metadata(obj).get("ownerReferences") or []:
        if reference.get("controller"):
            return dict(reference)
    return None


def controller_reference(owner: Mapping[str, Any], *, api_version: str, kind: str) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name(owner),
        "uid": uid(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def condition(obj: Mapping[str, Any], condition_type: str) -> Object | None:
    for found in (obj.get("status") or {}).get("conditions") or []:
        if found.get("type") == condition_type:
            return dict(found)
    return None


def is_condition_true(obj: Mapping[str, Any], condition_type: str) -> bool:
    found = condition(obj, condition_type)
    return found is not None and found.get("status") == "True"


def with_condition(
    conditions: Iterable[Object],
    condition_type: str,
    status: str,
    *,
    now: dt.datetime,
    **fields: Any,
) -> list[Object]:
    """Return the conditions with one set; its transition time moves only when its status does."""
    listed = [dict(existing) for existing in conditions]
    wanted: Object = {"type": condition_type, "status": status, **fields}
    for position, existing in enumerate(listed):
        if existing["type"] == condition_type:
            moved = existing.get("status") != status
            wanted["lastTransitionTime"] = (
                format_time(now) if moved else existing.get("lastTransitionTime")
            )
            listed[position] = {**existing, **wanted} if not moved else wanted
            return listed
    listed.append({**wanted, "lastTransitionTime": format_time(now)})
    return listed


def format_time(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str | None) -> dt.datetime | None:
    return dt.datetime.fromisoformat(text) if text else None


def random_suffix(seed: str, length: int = 5) -> str:
    """Return a name's suffix that follows from the seed, in the alphabet of generated names."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "big")
    letters = []
    for _ in range(length):
        number, remainder = divmod(number, len(_SAFE_ALPHABET))
        letters.append(_SAFE_ALPHABET[remainder])
    return "".join(letters)


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def matches_selector(selector: Mapping[str, Any] | None, labelled: Mapping[str, str]) -> bool:
    """Say whether the labels meet a label selector; an absent selector meets nothing."""
    if selector is None:
        return False
    for label, wanted in (selector.get("matchLabels") or {}).items():
        if labelled.get(label) != wanted:
            return False
    return all(
        _meets(requirement, labelled) for requirement in selector.get("matchExpressions") or []
    )


def _meets(requirement: Mapping[str, Any], labelled: Mapping[str, str]) -> bool:
    found = labelled.get(requirement["key"])
    values = requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return found in values
        case "NotIn":
            return found not in values
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case "Gt":
            return found is not None and int(found) > int(values[0])
        case "Lt":
            return found is not None and int(found) < int(values[0])
        case operator:
            raise ValueError(f"label selector: unknown operator {operator!r}")
