"""What a Job needs next. Pure: ``plan(job, pods, taken_names, now) -> Plan``, no I/O.

Each ended pod is counted once. Its uid first enters ``status.uncountedTerminatedPods``; then its
tracking finalizer is removed; when that is seen, the uid leaves the list and the number grows.
A controller that dies between any two of these steps goes on where it was.

Source: the rules of Kubernetes' own job controller (KEP-2307 tracking with finalizers, KEP-3329
pod failure policy, KEP-3939 pod replacement policy).
"""

import dataclasses
import datetime as dt
from collections.abc import Iterable

from loraland_local.apiclient import objects, pod_state
from loraland_local.apiclient.objects import Event, Object
from loraland_local.controllers import job_pods, job_status, pod_failure_policy
from loraland_local.controllers.job_status import Tally

FIRST_BACKOFF_S = 10.0
MAX_BACKOFF_S = 600.0
_MAX_CREATIONS = 50


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to do, in this order: write the status, release, delete, create, tell."""

    status: Object | None = None
    release: tuple[Object, ...] = ()
    delete: tuple[Object, ...] = ()
    create: tuple[Object, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_after_s: float | None = None


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a job has to be given up."""

    reason: str
    message: str


def is_finished(job: Object) -> bool:
    return any(objects.is_condition_true(job, kind) for kind in ("Complete", "Failed"))


def plan(
    job: Object,
    pods: list[Object],
    taken_names: Iterable[str],
    now: dt.datetime,
    *,
    first_backoff_s: float = FIRST_BACKOFF_S,
) -> Plan:
    """Decide the next step for a job from its pods."""
    if is_finished(job):
        tracked = tuple(pod for pod in pods if job_pods.is_tracked(pod))
        return Plan(release=tracked, delete=tuple(filter(pod_state.is_active, pods)))
    failure = find_failure(job, pods, now)
    is_complete = failure is None and _is_complete(job, job_status.tally(job, pods))
    is_ending = failure is not None or is_complete or objects.is_deleting(job)
    tally = job_status.tally(job, pods, is_ending=is_ending, is_failing=failure is not None)
    delete, create, wait_s = _plan_pods(
        job,
        pods,
        tally,
        now,
        taken=set(taken_names),
        is_ending=is_ending,
        first_backoff_s=first_backoff_s,
    )
    events: list[Event] = []
    status = job_status.build(job, tally, now, events, is_complete=is_complete, failure=failure)
    is_suspended = bool(job["spec"].get("suspend"))
    # Pods that are deleted because they are not needed leave without being counted as failures.
    dismissed = () if is_ending else delete
    waits = [wait_s, _deadline_left_s(job, now) if not is_suspended else None]
    return Plan(
        status=None if status == (job.get("status") or {}) else status,
        release=(*tally.release, *(pod for pod in dismissed if job_pods.is_tracked(pod))),
        delete=delete,
        create=create,
        events=tuple(events),
        requeue_after_s=min((wait for wait in waits if wait is not None), default=None),
    )


def find_failure(job: Object, pods: list[Object], now: dt.datetime) -> Failure | None:
    """Return why the job must fail, the reason found earlier first."""
    decided = objects.condition(job, "FailureTarget")
    if decided is not None and decided["status"] == "True":
        return Failure(decided["reason"], decided["message"])
    if objects.is_condition_true(job, "SuccessCriteriaMet"):
        return None
    for pod in pods:
        if pod_state.phase(pod) == "Failed" and job_pods.is_tracked(pod):
            verdict = pod_failure_policy.judge(job, pod)
            if verdict is not None and verdict.action == "FailJob":
                return Failure("PodFailurePolicy", verdict.message)
    if _is_past_backoff_limit(job, pods):
        return Failure("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    left_s = _deadline_left_s(job, now)
    if left_s is not None and left_s <= 0 and not job["spec"].get("suspend"):
        return Failure("DeadlineExceeded", "Job was active longer than specified deadline")
    return None


def _is_past_backoff_limit(job: Object, pods: list[Object]) -> bool:
    limit = int(job["spec"].get("backoffLimit", 6))
    if job_status.tally(job, pods).num_failed > limit:
        return True
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(job_pods.num_restarts(pod) for pod in pods if pod_state.is_active(pod))
    return restarts > 0 if limit == 0 else restarts >= limit


def _is_complete(job: Object, tally: Tally) -> bool:
    if objects.is_condition_true(job, "SuccessCriteriaMet"):
        return True
    completions = job["spec"].get("completions")
    if completions is None:
        return tally.num_succeeded > 0 and tally.num_active == 0
    return tally.num_succeeded >= int(completions) and not job["spec"].get("suspend")


def _deadline_left_s(job: Object, now: dt.datetime) -> float | None:
    deadline_s = job["spec"].get("activeDeadlineSeconds")
    started = objects.parse_time((job.get("status") or {}).get("startTime"))
    if deadline_s is None or started is None or objects.is_condition_true(job, "Suspended"):
        # A job that resumes has not had its start time moved yet.
        return None
    return float(deadline_s) - (now - started).total_seconds()


def _plan_pods(
    job: Object,
    pods: list[Object],
    tally: Tally,
    now: dt.datetime,
    *,
    taken: set[str],
    is_ending: bool,
    first_backoff_s: float,
) -> tuple[tuple[Object, ...], tuple[Object, ...], float | None]:
    if objects.is_deleting(job):
        # Its pods are the garbage collector's affair; they may be meant to stay as orphans.
        return (), (), None
    active = sorted(filter(pod_state.is_active, pods), key=_deletion_rank)
    if is_ending or job["spec"].get("suspend"):
        return tuple(active), (), None
    excess = _find_excess(job, active, tally)
    kept = [pod for pod in active if pod not in excess]
    missing = _num_wanted(job, kept, tally) - len(kept)
    if job_status.replaces_only_failed(job):
        missing -= tally.num_terminating
    if missing <= 0:
        return tuple(excess), (), None
    wait_s = _backoff_left_s(job, pods, now, first_backoff_s)
    if wait_s > 0:
        return tuple(excess), (), wait_s
    return (
        tuple(excess),
        tuple(_build_pods(job, pods, kept, tally, taken=taken, missing=missing)),
        None,
    )


def _num_wanted(job: Object, active: list[Object], tally: Tally) -> int:
    parallelism = int(job["spec"].get("parallelism", 1))
    completions = job["spec"].get("completions")
    if completions is None:
        return len(active) if tally.num_succeeded > 0 else parallelism
    return min(int(completions) - tally.num_succeeded, parallelism)


def _find_excess(job: Object, active: list[Object], tally: Tally) -> list[Object]:
    excess: list[Object] = []
    if tally.completed_indexes is not None:
        seen = set(tally.completed_indexes)
        for pod in reversed(active):
            index = job_pods.completion_index(pod)
            if index in seen or not 0 <= index < int(job["spec"]["completions"]):
                excess.append(pod)
            seen.add(index)
    parallelism = int(job["spec"].get("parallelism", 1))
    kept = [pod for pod in active if pod not in excess]
    return excess + kept[: max(len(kept) - parallelism, 0)]


def _deletion_rank(pod: Object) -> tuple[bool, bool, str]:
    """Order pods so that those whose loss costs the least come first."""
    is_running = pod_state.phase(pod) == "Running"
    created = str(objects.metadata(pod).get("creationTimestamp", ""))
    inverted = "".join(chr(0x10FFFF - ord(letter)) for letter in created)
    return is_running, objects.is_condition_true(pod, "Ready"), inverted


def _build_pods(
    job: Object,
    pods: list[Object],
    active: list[Object],
    tally: Tally,
    *,
    taken: set[str],
    missing: int,
) -> Iterable[Object]:
    indexes: list[int | None] = [None] * missing
    if tally.completed_indexes is not None:
        busy = {job_pods.completion_index(pod) for pod in active} | tally.completed_indexes
        if job_status.replaces_only_failed(job):
            busy |= {job_pods.completion_index(p) for p in pods if pod_state.is_terminating(p)}
        completions = int(job["spec"]["completions"])
        indexes = [index for index in range(completions) if index not in busy]
    ordinal = tally.num_succeeded + tally.num_failed + len(active)
    for position, index in enumerate(indexes[: min(missing, _MAX_CREATIONS)]):
        name = job_pods.build_name(job, index, ordinal + position, taken)
        taken.add(name)
        yield job_pods.build_pod(job, name, index)


def _backoff_left_s(
    job: Object, pods: list[Object], now: dt.datetime, first_backoff_s: float
) -> float:
    only_failed = job_status.replaces_only_failed(job)
    succeeded = [job_pods.finished_at(p, now) for p in pods if pod_state.phase(p) == "Succeeded"]
    last_success = max(succeeded, default=None)
    failures = []
    for pod in pods:
        if not job_pods.is_failed(pod, replace_only_failed=only_failed):
            continue
        verdict = pod_failure_policy.judge(job, pod)
        if verdict is not None and verdict.action == "Ignore":
            continue
        ended = job_pods.finished_at(pod, now)
        if last_success is None or ended > last_success:
            failures.append(ended)
    if not failures:
        return 0.0
    delay_s: float = min(first_backoff_s * 2 ** min(len(failures) - 1, 16), MAX_BACKOFF_S)
    return delay_s - (now - max(failures)).total_seconds()
