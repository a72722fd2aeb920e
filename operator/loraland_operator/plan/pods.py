"""What a batch/v1 Job and its pods say, read from their raw objects. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Object = Mapping[str, Any]

TRAINER_CONTAINER = "trainer"


@dataclass(frozen=True)
class Termination:
    """How a training container ended."""

    pod: str
    exit_code: int
    reason: str
    message: str


def find_true_condition(obj: Object, type_: str) -> Object | None:
    found: Sequence[Object] = obj.get("status", {}).get("conditions") or []
    return next((c for c in found if c.get("type") == type_ and c.get("status") == "True"), None)


def job_end(job: Object) -> Literal["Complete", "Failed"] | None:
    """Return how the Job ended; None while its pods may still do something."""
    if find_true_condition(job, "Complete"):
        return "Complete"
    if find_true_condition(job, "Failed"):
        return "Failed"
    return None


def job_failure(job: Object) -> tuple[str, str]:
    """Return reason and message of a failed Job."""
    condition = find_true_condition(job, "Failed") or {}
    return str(condition.get("reason", "")), str(condition.get("message", ""))


def is_suspended(job: Object) -> bool:
    return find_true_condition(job, "Suspended") is not None


def count_attempts(job: Object) -> int:
    """Return how many times pods of the Job were started."""
    status = job.get("status", {})
    num_nodes = int(job.get("spec", {}).get("completions") or 1)
    going = int(status.get("active") or 0) + int(status.get("succeeded") or 0)
    return int(status.get("failed") or 0) + -(-going // num_nodes)


def find_running(pods: Sequence[Object]) -> Object | None:
    """Return the pod that reports progress: the running one of lowest completion index."""
    running = [
        p
        for p in pods
        if p.get("status", {}).get("phase") == "Running"
        and not p["metadata"].get("deletionTimestamp")
    ]
    return min(running, key=_completion_index, default=None)


def _completion_index(pod: Object) -> int:
    annotations = pod["metadata"].get("annotations") or {}
    return int(annotations.get("batch.kubernetes.io/job-completion-index", 0))


def pod_ip(pod: Object) -> str:
    return str(pod.get("status", {}).get("podIP") or "")


def find_last_termination(pods: Sequence[Object]) -> Termination | None:
    """Return how the last container to fail ended."""
    ended: list[tuple[str, Termination]] = []
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses") or []:
            state = (container.get("state") or {}).get("terminated")
            if state and state.get("exitCode"):
                ended.append((str(state.get("finishedAt") or ""), _termination(pod, state)))
    return max(ended, key=lambda pair: pair[0], default=("", None))[1]


def _termination(pod: Object, state: Object) -> Termination:
    return Termination(
        pod=pod["metadata"]["name"],
        exit_code=int(state["exitCode"]),
        reason=str(state.get("reason") or ""),
        message=str(state.get("message") or "").strip(),
    )


def find_disruption(pods: Sequence[Object]) -> str:
    """Return why a pod was taken away that did not fail by itself; nothing where none was."""
    for pod in pods:
        found = find_true_condition(pod, "DisruptionTarget")
        if found is not None:
            why = ": ".join(filter(None, (found.get("reason"), found.get("message"))))
            return f"pod {pod['metadata']['name']} was taken away: {why}"
    return ""


def find_obstacle(pods: Sequence[Object]) -> tuple[bool, str]:
    """Return why no pod runs yet: whether no node takes it, and a sentence."""
    for pod in pods:
        status = pod.get("status", {})
        for condition in status.get("conditions") or []:
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return True, str(condition.get("message") or condition.get("reason") or "")
        for container in status.get("containerStatuses") or []:
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("message"):
                return False, f"{waiting.get('reason', 'Waiting')}: {waiting['message']}"
    return False, ""
