"""In which part of its life a pod is. Pure, no I/O."""

from collections.abc import Mapping
from typing import Any

from loraland_local.apiclient import objects


def phase(pod: Mapping[str, Any]) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


def is_terminal(pod: Mapping[str, Any]) -> bool:
    return phase(pod) in {"Succeeded", "Failed"}


def is_active(pod: Mapping[str, Any]) -> bool:
    return not is_terminal(pod) and not objects.is_deleting(pod)


def is_terminating(pod: Mapping[str, Any]) -> bool:
    return not is_terminal(pod) and objects.is_deleting(pod)
