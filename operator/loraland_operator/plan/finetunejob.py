"""The plan of a FineTuneJob: what to make, what to say and when to look again. Pure.

Nothing here depends on what happened, only on what is there: the same plan follows from a creation,
an update, a restart of the operator or an event of a child.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from loraland_core import conditions
from loraland_core.artifacts import Result
from loraland_core.catalogue import BaseModelEntry
from loraland_core.jobspec import Progress
from loraland_core.names import JobCondition, Phase, Reason
from loraland_core.resources import Adapter, FineTuneJob, FineTuneJobStatus
from loraland_core.resources.finetunejob import ObjectRef
from loraland_core.store import StoreConfig

from loraland_operator import manifests
from loraland_operator.plan import acceptance, ending, pods, running
from loraland_operator.plan.draft import Draft
from loraland_operator.plan.steps import Apply, Plan, Refusal

JobDraft = Draft[FineTuneJobStatus]

# How often a running job is asked for its progress; the status is written only when it changed.
PROGRESS_EVERY_S = 2.0
# Events of children wake us; this is for events that got lost.
SAFETY_NET_S = 60.0
REJECTED_RETRY_S = 20.0
STORE_RETRY_S = 5.0
PREDECESSOR_RETRY_S = 2.0


class ResultState(Enum):
    """Whether the artifact store holds a result of this job."""

    NOT_ASKED = "not asked"
    UNKNOWN = "unknown"
    MISSING = "missing"
    FOUND = "found"


@dataclass(frozen=True)
class Settings:
    """What every job of this operator shares."""

    image: str
    log_format: str
    store: StoreConfig


@dataclass(frozen=True)
class Observed:
    """The world around one FineTuneJob."""

    settings: Settings
    entry: BaseModelEntry | None = None
    known_base_models: tuple[str, ...] = ()
    # Fields that name a Secret which does not exist, with its name.
    missing_secrets: Mapping[str, str] | None = None
    job: Mapping[str, Any] | None = None
    pods: tuple[Mapping[str, Any], ...] = ()
    progress: Progress | None = None
    log_tail: str = ""
    result_state: ResultState = ResultState.NOT_ASKED
    result: Result | None = None
    # Where the result's artifact must lie.
    expected_uri: str = ""
    store_problem: str = ""
    adapter: Adapter | None = None
    refusal: Refusal | None = None


def has_ended(status: FineTuneJobStatus) -> bool:
    """Return whether the terminal condition is set; from then on nothing is ever run."""
    found = conditions.find_condition(status.conditions, JobCondition.SUCCEEDED)
    return found is not None and found.status != "Unknown"


def plan(job: FineTuneJob, observed: Observed, now: datetime) -> Plan:
    if job.metadata.deletion_timestamp:
        return Plan()
    if has_ended(job.status):
        return _plan_after_end(job, now)
    draft: JobDraft = Draft(
        job.status, list(JobCondition), generation=job.metadata.generation, now=now
    )
    apply, phase, requeue_after_s = _decide(job, observed, draft)
    draft.status.reason = _explain(phase, draft)
    if has_ended(draft.status) and job.spec.ttl_seconds_after_finished is not None:
        requeue_after_s = job.spec.ttl_seconds_after_finished + 1.0
    return Plan(
        apply=apply,
        status=draft.finish(phase),
        notes=draft.notes() + running.notes(job.status, draft, observed.pods, observed.log_tail),
        requeue_after_s=requeue_after_s,
    )


_EXPLAINED_BY = {
    Phase.PENDING: JobCondition.RUNNING,
    Phase.REJECTED: JobCondition.ACCEPTED,
    Phase.SUSPENDED: JobCondition.SUSPENDED,
    Phase.RUNNING: JobCondition.RUNNING,
    Phase.PUBLISHING: JobCondition.UPLOADED,
    Phase.SUCCEEDED: JobCondition.ADAPTER_PUBLISHED,
    Phase.FAILED: JobCondition.SUCCEEDED,
}


def _explain(phase: Phase, draft: JobDraft) -> str:
    """Return the one reason that tells most about the phase."""
    if draft.find(JobCondition.ACCEPTED).status == "False" and phase is Phase.PENDING:
        return draft.find(JobCondition.ACCEPTED).reason
    return draft.find(_EXPLAINED_BY[phase]).reason


Decision = tuple[tuple[Apply, ...], Phase, float | None]


def _decide(job: FineTuneJob, observed: Observed, draft: JobDraft) -> Decision:
    if observed.result_state is ResultState.FOUND:
        return _finish(job, observed, draft)
    if observed.job is None:
        return _without_job(job, observed, draft)
    if not acceptance.is_of(job, observed.job):
        return acceptance.wait_for_name(observed.job, draft), Phase.PENDING, PREDECESSOR_RETRY_S
    metadata = observed.job["metadata"]
    draft.status.job_ref = ObjectRef(name=metadata["name"], uid=metadata.get("uid"))
    acceptance.accept(draft)
    if pods.job_end(observed.job) is None:
        return _while_it_runs(job, observed, draft)
    return _after_run(observed.job, observed, draft)


def _after_run(child: Mapping[str, Any], observed: Observed, draft: JobDraft) -> Decision:
    if observed.result_state is not ResultState.MISSING:
        return _wait_for_store(observed, draft)
    running.stop(draft, child)
    if pods.job_end(child) == "Failed":
        return (), ending.fail(draft, child, observed.pods, observed.log_tail), None
    return (), ending.fail_without_result(draft, observed.store_problem), None


def _without_job(job: FineTuneJob, observed: Observed, draft: JobDraft) -> Decision:
    if job.status.job_ref is not None:
        # It ran, and somebody or a TTL removed it: only the store knows how it ended.
        if observed.result_state is not ResultState.MISSING:
            return _wait_for_store(observed, draft)
        return (), ending.fail_lost(draft, job.status.job_ref.name), None
    problem = acceptance.find_problem(job, observed)
    if problem is None:
        return _start(job, observed, draft)
    acceptance.reject(draft, problem)
    if problem.is_final:
        return (), ending.reject(draft, problem), None
    return (), Phase.REJECTED, REJECTED_RETRY_S


def _start(job: FineTuneJob, observed: Observed, draft: JobDraft) -> Decision:
    settings = observed.settings
    assert observed.entry is not None, "an unknown base model is a problem"
    job_file = manifests.build_job_file(job, observed.entry, settings.store)
    children = [Apply(manifests.build_config_map(job, job_file))]
    if job.spec.num_nodes > 1:
        children.append(Apply(manifests.build_service(job)))
    children.append(
        Apply(
            manifests.build_job(
                job, observed.entry, image=settings.image, log_format=settings.log_format
            )
        )
    )
    acceptance.accept(draft)
    return tuple(children), Phase.PENDING, SAFETY_NET_S


def _while_it_runs(job: FineTuneJob, observed: Observed, draft: JobDraft) -> Decision:
    assert observed.job is not None
    phase = running.describe(draft, job, observed.job, observed.pods, observed.progress)
    apply: tuple[Apply, ...] = ()
    if observed.refusal is None and running.lifecycle_differs(job, observed.job):
        apply = (Apply(manifests.build_job_lifecycle(job), manager=manifests.MANAGER_LIFECYCLE),)
    requeue_s = PROGRESS_EVERY_S if phase is Phase.RUNNING else SAFETY_NET_S
    return apply, phase, requeue_s


def _wait_for_store(observed: Observed, draft: JobDraft) -> Decision:
    if observed.store_problem:
        draft.set(
            JobCondition.UPLOADED,
            "Unknown",
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"the run has ended; its result cannot be read: {observed.store_problem}",
        )
    return (), Phase.PUBLISHING, STORE_RETRY_S


def _finish(job: FineTuneJob, observed: Observed, draft: JobDraft) -> Decision:
    result = observed.result
    assert result is not None
    acceptance.accept(draft)
    running.stop(draft, observed.job)
    if result.job_uid != job.metadata.uid or result.uri != observed.expected_uri:
        return (), ending.fail_foreign_result(draft, result, observed.expected_uri), None
    ending.record_result(draft, result)
    apply, phase = ending.publish(job, result, observed.adapter, observed.refusal, draft)
    return apply, phase, REJECTED_RETRY_S if phase is Phase.PUBLISHING else None


def _plan_after_end(job: FineTuneJob, now: datetime) -> Plan:
    """Delete the job itself when its time has come; its Adapter stays."""
    ttl_s = job.spec.ttl_seconds_after_finished
    if ttl_s is None or not job.status.completion_time:
        return Plan()
    due = conditions.parse_timestamp(job.status.completion_time) + timedelta(seconds=ttl_s)
    if due <= now:
        return Plan(delete_self=True)
    return Plan(requeue_after_s=(due - now).total_seconds() + 1)
