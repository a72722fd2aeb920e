"""Pods of a Job: how they are built, and what their states count as. Pure, no I/O."""

import copy
import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from loraland_local.apiclient import objects, pod_state
from loraland_local.apiclient.objects import Object

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX_KEY = "batch.kubernetes.io/job-completion-index"
NAME_LABEL = "batch.kubernetes.io/job-name"
UNKNOWN_INDEX = -1


def build_pod(job: Object, name: str, index: int | None) -> Object:
    """Build one pod of the job; ``index`` is None unless the job is Indexed."""
    template = copy.deepcopy(job["spec"]["template"])
    template_meta = template.get("metadata") or {}
    labels = dict(template_meta.get("labels") or {})
    annotations = dict(template_meta.get("annotations") or {})
    spec: Object = template["spec"]
    if index is not None:
        annotations[INDEX_KEY] = labels[INDEX_KEY] = str(index)
        spec.setdefault("hostname", f"{objects.name(job)}-{index}")
        for container in (spec.get("initContainers") or []) + spec["containers"]:
            _add_index_variable(container)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": objects.namespace(job),
            "labels": labels,
            "annotations": annotations,
            "finalizers": [TRACKING_FINALIZER],
            "ownerReferences": [
                objects.controller_reference(job, api_version="batch/v1", kind="Job")
            ],
        },
        "spec": spec,
    }


def _add_index_variable(container: Object) -> None:
    variables = container.setdefault("env", [])
    if not any(variable["name"] == "JOB_COMPLETION_INDEX" for variable in variables):
        source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX_KEY}']"}}
        variables.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": source})


def build_name(job: Object, index: int | None, first_ordinal: int, taken: set[str]) -> str:
    """Choose a free name that a repeated decision would choose again."""
    stem = objects.name(job) if index is None else f"{objects.name(job)}-{index}"
    ordinal = first_ordinal
    while True:
        name = f"{stem[:57]}-{objects.random_suffix(f'{objects.uid(job)}/{ordinal}')}"
        if name not in taken:
            return name
        ordinal += 1


def is_failed(pod: Mapping[str, Any], *, replace_only_failed: bool) -> bool:
    """Say whether the pod counts as a failure.

    A deleted pod does at once, unless the job replaces pods only when they have really ended.
    """
    if pod_state.phase(pod) == "Failed":
        return True
    return (
        not replace_only_failed and objects.is_deleting(pod) and pod_state.phase(pod) != "Succeeded"
    )


def is_tracked(pod: Mapping[str, Any]) -> bool:
    return TRACKING_FINALIZER in objects.finalizers(pod)


def completion_index(pod: Mapping[str, Any]) -> int:
    found = objects.annotations(pod).get(INDEX_KEY, "")
    return int(found) if found.isdecimal() else UNKNOWN_INDEX


def num_restarts(pod: Mapping[str, Any]) -> int:
    status = pod.get("status") or {}
    listed = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
    return sum(int(container.get("restartCount", 0)) for container in listed)


def finished_at(pod: Mapping[str, Any], now: dt.datetime) -> dt.datetime:
    """Return when the pod ended, as well as its status tells."""
    status = pod.get("status") or {}
    times = [
        objects.parse_time(
            ((container.get("state") or {}).get("terminated") or {}).get("finishedAt")
        )
        for container in status.get("containerStatuses") or []
    ]
    known = [moment for moment in times if moment is not None]
    if known:
        return max(known)
    return objects.parse_time(objects.metadata(pod).get("deletionTimestamp")) or now


def parse_indexes(text: str) -> set[int]:
    """Read completed indexes as a Job's status writes them: ``0,2-4``."""
    indexes: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        indexes.update(range(int(first), int(last or first) + 1))
    return indexes


def format_indexes(indexes: Iterable[int]) -> str:
    """Write indexes as ranges: two neighbours stay a pair, three become a range."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    parts = []
    for first, last in runs:
        if first == last:
            parts.append(str(first))
        else:
            parts.append(f"{first},{last}" if last == first + 1 else f"{first}-{last}")
    return ",".join(parts)
