"""What a pod may know of itself: fieldRef and resourceFieldRef. Pure, no I/O."""

import math
import re
from decimal import Decimal
from typing import Any

from loraland_local.apiclient import objects, quantities
from loraland_local.apiclient.objects import Object

_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['([^']+)'\]$")
_SPEC_FIELDS = {
    "spec.nodeName": "nodeName",
    "spec.serviceAccountName": "serviceAccountName",
}
_STATUS_FIELDS = ("status.podIP", "status.hostIP", "status.podIPs", "status.hostIPs")


def field(pod: Object, path: str) -> str:
    """Return a pod's field as text; ``ValueError`` when a pod has no such field."""
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        values: dict[str, str] = objects.metadata(pod).get(subscript[1]) or {}
        return str(values.get(subscript[2], ""))
    if path in {"metadata.name", "metadata.namespace", "metadata.uid"}:
        return str(objects.metadata(pod)[path.removeprefix("metadata.")])
    if path in {"metadata.labels", "metadata.annotations"}:
        listed = objects.metadata(pod).get(path.removeprefix("metadata.")) or {}
        return "\n".join(f"{k}={_quote(str(v))}" for k, v in sorted(listed.items()))
    if path in _SPEC_FIELDS:
        return str((pod.get("spec") or {}).get(_SPEC_FIELDS[path], ""))
    if path in _STATUS_FIELDS:
        return _status_field(pod.get("status") or {}, path.removeprefix("status."))
    raise ValueError(f"fieldRef: a pod has no field {path!r} that can be passed down")


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _status_field(status: Object, name: str) -> str:
    if name.endswith("s"):
        return ",".join(str(entry["ip"]) for entry in status.get(name) or [])
    return str(status.get(name, ""))


def resource(reference: Object, container: Object, node_allocatable: dict[str, str]) -> str:
    """Return a container's limit or request in units of the divisor, rounded up."""
    kind, _, name = str(reference["resource"]).partition(".")
    declared: dict[str, Any] = container.get("resources") or {}
    amounts: dict[str, str] = declared.get(kind) or {}
    if name not in amounts and kind == "requests":
        amounts = declared.get("limits") or {}
    # A container without a limit may use all that the node has.
    found = amounts.get(name) or (node_allocatable.get(name, "0") if kind == "limits" else "0")
    divisor = quantities.parse(str(reference.get("divisor") or "1")) or Decimal(1)
    return str(math.ceil(quantities.parse(found) / divisor))
