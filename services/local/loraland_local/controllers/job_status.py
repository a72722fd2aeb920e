"""A Job's numbers and conditions. Pure, no I/O."""

import dataclasses
import datetime as dt
from typing import Any, Protocol

from loraland_local.apiclient import objects, pod_state
from loraland_local.apiclient.objects import Event, Object
from loraland_local.controllers import job_pods, pod_failure_policy

_COMPLETE_REASON = "CompletionsReached"
_COMPLETE_MESSAGE = "Reached expected number of succeeded pods"


class Cause(Protocol):
    """Why a job fails."""

    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Tally:
    """The pods of a job, counted.

    ``succeeded`` and ``failed`` are the settled numbers; the ``uncounted`` uids come on top.
    ``release`` are the tracked pods whose finalizer may go once the status is written.
    """

    num_active: int
    num_ready: int
    num_terminating: int
    succeeded: int
    failed: int
    uncounted_succeeded: tuple[str, ...]
    uncounted_failed: tuple[str, ...]
    completed_indexes: set[int] | None
    release: tuple[Object, ...]

    @property
    def num_succeeded(self) -> int:
        if self.completed_indexes is not None:
            return len(self.completed_indexes)
        return self.succeeded + len(self.uncounted_succeeded)

    @property
    def num_failed(self) -> int:
        return self.failed + len(self.uncounted_failed)


def replaces_only_failed(job: Object) -> bool:
    spec = job["spec"]
    default = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    return bool(spec.get("podReplacementPolicy", default) == "Failed")


def tally(
    job: Object, pods: list[Object], *, is_ending: bool = False, is_failing: bool = False
) -> Tally:
    """Count the pods; an ending job also lets go of those that still run."""
    status = job.get("status") or {}
    tracked = {objects.uid(pod) for pod in pods if job_pods.is_tracked(pod)}
    listed = status.get("uncountedTerminatedPods") or {}
    waiting = {kind: list(listed.get(kind) or []) for kind in ("succeeded", "failed")}
    settled = {
        kind: int(status.get(kind, 0)) + sum(uid not in tracked for uid in uids)
        for kind, uids in waiting.items()
    }
    uncounted = {kind: [u for u in uids if u in tracked] for kind, uids in waiting.items()}
    indexes = _completed_indexes(job, pods)
    release = []
    only_failed = replaces_only_failed(job)
    for pod in pods:
        if not job_pods.is_tracked(pod):
            continue
        if pod_state.phase(pod) == "Succeeded":
            release.append(pod)
            if indexes is None and objects.uid(pod) not in uncounted["succeeded"]:
                uncounted["succeeded"].append(objects.uid(pod))
        elif job_pods.is_failed(pod, replace_only_failed=only_failed) or is_ending:
            release.append(pod)
            is_counted = job_pods.is_failed(pod, replace_only_failed=only_failed) or is_failing
            if is_counted and _counts(job, pod) and objects.uid(pod) not in uncounted["failed"]:
                uncounted["failed"].append(objects.uid(pod))
    active = [pod for pod in pods if pod_state.is_active(pod)]
    return Tally(
        num_active=len(active),
        num_ready=sum(objects.is_condition_true(pod, "Ready") for pod in active),
        num_terminating=sum(pod_state.is_terminating(pod) for pod in pods),
        succeeded=len(indexes) if indexes is not None else settled["succeeded"],
        failed=settled["failed"],
        uncounted_succeeded=tuple(uncounted["succeeded"]),
        uncounted_failed=tuple(uncounted["failed"]),
        completed_indexes=indexes,
        release=tuple(release),
    )


def _counts(job: Object, pod: Object) -> bool:
    verdict = pod_failure_policy.judge(job, pod) if pod_state.phase(pod) == "Failed" else None
    return verdict is None or verdict.action != "Ignore"


def _completed_indexes(job: Object, pods: list[Object]) -> set[int] | None:
    if job["spec"].get("completionMode") != "Indexed":
        return None
    completions = int(job["spec"].get("completions") or 0)
    known = job_pods.parse_indexes((job.get("status") or {}).get("completedIndexes", ""))
    reached = {
        job_pods.completion_index(pod) for pod in pods if pod_state.phase(pod) == "Succeeded"
    }
    return {index for index in known | reached if 0 <= index < completions}


def build(
    job: Object,
    counted: Tally,
    now: dt.datetime,
    events: list[Event],
    *,
    is_complete: bool,
    failure: Cause | None,
) -> Object:
    """Return the job's next status and append what is worth telling to ``events``."""
    status: Object = dict(job.get("status") or {})
    is_suspended = bool(job["spec"].get("suspend"))
    if not is_suspended and "startTime" not in status:
        status["startTime"] = objects.format_time(now)
    _set_numbers(status, counted)
    conditions = list(status.get("conditions") or [])
    if failure is not None:
        conditions = _fail(conditions, counted, now, events, failure)
    elif is_complete:
        conditions = _complete(conditions, counted, now, events)
        if any(found["type"] == "Complete" for found in conditions):
            status["completionTime"] = objects.format_time(now)
    else:
        conditions = _suspend_or_resume(status, conditions, is_suspended, now, events)
    if conditions:
        status["conditions"] = conditions
    return status


def _set_numbers(status: Object, counted: Tally) -> None:
    numbers: dict[str, Any] = {
        "active": counted.num_active,
        "succeeded": counted.succeeded,
        "failed": counted.failed,
    }
    for field, number in numbers.items():
        if number or field in status:
            status[field] = number
    status["ready"] = counted.num_ready
    status["terminating"] = counted.num_terminating
    uncounted = {
        "succeeded": list(counted.uncounted_succeeded),
        "failed": list(counted.uncounted_failed),
    }
    status["uncountedTerminatedPods"] = {kind: uids for kind, uids in uncounted.items() if uids}
    if counted.completed_indexes:
        status["completedIndexes"] = job_pods.format_indexes(counted.completed_indexes)


def _is_settled(counted: Tally) -> bool:
    """Say whether no pod runs any more and each has been counted."""
    return (
        counted.num_active == 0
        and counted.num_terminating == 0
        and not counted.uncounted_failed
        and not counted.uncounted_succeeded
        and not counted.release
    )


def _fail(
    conditions: list[Object],
    counted: Tally,
    now: dt.datetime,
    events: list[Event],
    failure: Cause,
) -> list[Object]:
    why = {"reason": failure.reason, "message": failure.message}
    if not any(found["type"] == "FailureTarget" for found in conditions):
        conditions = _add_condition(conditions, "FailureTarget", now, **why)
    if _is_settled(counted):
        conditions = _add_condition(conditions, "Failed", now, **why)
        events.append(Event("Warning", failure.reason, failure.message))
    return conditions


def _complete(
    conditions: list[Object], counted: Tally, now: dt.datetime, events: list[Event]
) -> list[Object]:
    why = {"reason": _COMPLETE_REASON, "message": _COMPLETE_MESSAGE}
    if not any(found["type"] == "SuccessCriteriaMet" for found in conditions):
        conditions = _add_condition(conditions, "SuccessCriteriaMet", now, **why)
    if _is_settled(counted):
        conditions = _add_condition(conditions, "Complete", now, **why)
        events.append(Event("Normal", "Completed", "Job completed"))
    return conditions


def _add_condition(
    conditions: list[Object], kind: str, now: dt.datetime, **why: str
) -> list[Object]:
    probed = objects.format_time(now)
    return objects.with_condition(conditions, kind, "True", now=now, lastProbeTime=probed, **why)


def _suspend_or_resume(
    status: Object,
    conditions: list[Object],
    is_suspended: bool,
    now: dt.datetime,
    events: list[Event],
) -> list[Object]:
    was_suspended = any(
        found["type"] == "Suspended" and found["status"] == "True" for found in conditions
    )
    if is_suspended == was_suspended:
        return conditions
    if not is_suspended:
        status["startTime"] = objects.format_time(now)
    state = "True" if is_suspended else "False"
    word = "suspended" if is_suspended else "resumed"
    events.append(Event("Normal", word.capitalize(), f"Job {word}"))
    return objects.with_condition(
        conditions,
        "Suspended",
        state,
        now=now,
        lastProbeTime=objects.format_time(now),
        reason=f"Job{word.capitalize()}",
        message=f"Job {word}",
    )
