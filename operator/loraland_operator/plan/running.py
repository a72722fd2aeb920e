"""What a FineTuneJob's status says while its pods come and go. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from loraland_core import jobspec
from loraland_core.names import JobCondition, Phase, Reason
from loraland_core.resources import FineTuneJob, FineTuneJobStatus
from loraland_core.resources.finetunejob import Progress

from loraland_operator import manifests
from loraland_operator.plan import failure, pods
from loraland_operator.plan.draft import Draft
from loraland_operator.plan.pods import Object
from loraland_operator.plan.steps import Note

JobDraft = Draft[FineTuneJobStatus]

DEADLINE = "activeDeadlineSeconds"


def describe(
    draft: JobDraft,
    job: FineTuneJob,
    child: Object,
    job_pods: Sequence[Object],
    progress: jobspec.Progress | None,
) -> Phase:
    """Set Suspended, Running, attempts and progress from the Job and its pods."""
    status = draft.status
    status.attempts = max(pods.count_attempts(child), status.attempts or 0)
    status.start_time = child.get("status", {}).get("startTime") or status.start_time
    draft.set(JobCondition.SUCCEEDED, "Unknown", Reason.IN_PROGRESS)
    if pods.is_suspended(child) or (job.spec.suspend and not pods.find_running(job_pods)):
        return _describe_suspended(draft, job)
    if draft.is_true(JobCondition.SUSPENDED):
        draft.set(JobCondition.SUSPENDED, "False", Reason.RESUMED, "training may go on")
    elif draft.find(JobCondition.SUSPENDED).status == "Unknown":
        draft.set(JobCondition.SUSPENDED, "False", Reason.NOT_SUSPENDED)
    running = pods.find_running(job_pods)
    if running is None:
        return _describe_waiting(draft, job_pods)
    if progress is not None:
        status.progress = build_progress(progress)
    doing = status.progress.phase if status.progress else None
    message = f"pod {running['metadata']['name']} runs: {doing or 'starting'}"
    draft.set(JobCondition.RUNNING, "True", Reason.TRAINING, message)
    return Phase.RUNNING


def _describe_suspended(draft: JobDraft, job: FineTuneJob) -> Phase:
    if job.spec.queue_name:
        text = f"waiting in queue {job.spec.queue_name}"
        draft.set(JobCondition.SUSPENDED, "True", Reason.QUEUED, text)
        draft.set(JobCondition.RUNNING, "False", Reason.QUEUED, text)
    else:
        text = "spec.suspend is true; set it to false to go on"
        draft.set(JobCondition.SUSPENDED, "True", Reason.SUSPENDED, text)
        draft.set(JobCondition.RUNNING, "False", Reason.SUSPENDED, text)
    return Phase.SUSPENDED


def _describe_waiting(draft: JobDraft, job_pods: Sequence[Object]) -> Phase:
    is_unschedulable, message = pods.find_obstacle(job_pods)
    reason = Reason.UNSCHEDULABLE if is_unschedulable else Reason.WAITING_FOR_POD
    disruption = pods.find_disruption(job_pods)
    if disruption and not message:
        reason = Reason.DISRUPTED
        message = f"{disruption}; another one goes on from the last checkpoint"
    draft.set(JobCondition.RUNNING, "False", reason, message)
    return Phase.PENDING


def build_progress(progress: jobspec.Progress) -> Progress:
    """Return the pod's report as the status shows it: whole numbers and decimal strings."""
    total = progress.total_steps
    return Progress(
        step=progress.step,
        total_steps=total,
        percent=min(100, 100 * progress.step // total) if total > 0 else 0,
        loss=None if progress.loss is None else f"{progress.loss:.4f}",
        tokens_per_second=None
        if progress.tokens_per_second is None
        else round(progress.tokens_per_second),
        eta_seconds=None if progress.eta_seconds is None else round(progress.eta_seconds),
        phase=progress.phase,
    )


def stop(draft: JobDraft, child: Mapping[str, Any] | None) -> None:
    """Say that no pod runs any more."""
    draft.set(JobCondition.RUNNING, "False", Reason.FINISHED, "the run has ended")
    if draft.find(JobCondition.SUSPENDED).status != "False":
        draft.set(JobCondition.SUSPENDED, "False", Reason.NOT_SUSPENDED)
    if child is not None:
        status = draft.status
        status.attempts = max(pods.count_attempts(child), status.attempts or 0)
        status.start_time = child.get("status", {}).get("startTime") or status.start_time
    if draft.status.progress is not None:
        draft.status.progress.eta_seconds = None


def lifecycle_differs(job: FineTuneJob, child: Mapping[str, Any]) -> bool:
    """Return whether suspension or deadline of the Job are not what the spec asks for."""
    wanted = manifests.build_job_lifecycle(job)["spec"]
    spec = child.get("spec", {})
    if DEADLINE in spec and DEADLINE not in wanted:
        return True
    return any((spec.get(key) or False) != (value or False) for key, value in wanted.items())


def notes(
    before: FineTuneJobStatus, draft: JobDraft, job_pods: Sequence[Object], log_tail: str
) -> tuple[Note, ...]:
    """Return an event for a new attempt after a failed one."""
    attempts = draft.status.attempts or 0
    if draft.find(JobCondition.SUCCEEDED).status != "Unknown":
        return ()
    if before.attempts is None or attempts <= max(before.attempts, 1):
        return ()
    why = failure.describe_attempt(pods.find_last_termination(job_pods), log_tail)
    return (Note("Warning", Reason.RETRYING, f"attempt {attempts} after {why}", 2),)
