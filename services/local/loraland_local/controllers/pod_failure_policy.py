"""A Job's podFailurePolicy: what one failed pod means for the job. Pure, no I/O."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The first rule that matched: FailJob, Ignore or Count, and why in a sentence."""

    action: str
    message: str


def judge(job: Object, pod: Object) -> Verdict | None:
    """Return the verdict of the first matching rule, or None when none matches."""
    rules = ((job.get("spec") or {}).get("podFailurePolicy") or {}).get("rules") or []
    for position, rule in enumerate(rules):
        cause = _match_exit_codes(rule.get("onExitCodes"), pod)
        if cause is None:
            cause = _match_conditions(rule.get("onPodConditions") or [], pod)
        if cause is not None:
            action = str(rule["action"])
            where = f"{objects.namespace(pod)}/{objects.name(pod)}"
            subject, verb = cause
            message = f"{subject} pod {where} {verb} matching {action} rule at index {position}"
            return Verdict(action, message)
    return None


def _match_exit_codes(requirement: Mapping[str, Any] | None, pod: Object) -> tuple[str, str] | None:
    if requirement is None:
        return None
    status = pod.get("status") or {}
    listed = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
    for container in listed:
        terminated = (container.get("state") or {}).get("terminated") or {}
        exit_code = int(terminated.get("exitCode", 0))
        wanted_name = requirement.get("containerName")
        if exit_code == 0 or (wanted_name and container["name"] != wanted_name):
            continue
        is_listed = exit_code in requirement["values"]
        if is_listed == (requirement["operator"] == "In"):
            return f"Container {container['name']} for", f"failed with exit code {exit_code}"
    return None


def _match_conditions(patterns: list[Object], pod: Object) -> tuple[str, str] | None:
    for pattern in patterns:
        found = objects.condition(pod, pattern["type"])
        if found is not None and found.get("status") == pattern.get("status", "True"):
            return "", f"has condition {pattern['type']}"
    return None
