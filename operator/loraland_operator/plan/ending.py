"""How a FineTuneJob ends: published, held back by its gate, or failed with a reason. Pure."""

from collections.abc import Sequence

from loraland_core import conditions, names
from loraland_core.artifacts import Result
from loraland_core.names import JobCondition, Phase, Reason
from loraland_core.resources import Adapter, FineTuneJob, FineTuneJobStatus
from loraland_core.resources.finetunejob import (
    ArtifactStatus,
    Failure,
    ObjectRef,
    Progress,
    Score,
)

from loraland_operator.plan import acceptance, failure, publishing
from loraland_operator.plan.draft import Draft
from loraland_operator.plan.pods import Object
from loraland_operator.plan.steps import Apply, Refusal

JobDraft = Draft[FineTuneJobStatus]


def publish(
    job: FineTuneJob,
    result: Result,
    adapter: Adapter | None,
    refusal: Refusal | None,
    draft: JobDraft,
) -> tuple[tuple[Apply, ...], Phase]:
    """Publish the Adapter if gate and name allow it; the run itself has succeeded either way."""
    if not result.gate_passed:
        message = result.gate_message or "the scores are below spec.evaluation.gate"
        return (), _hold_back(draft, Reason.GATE_FAILED, message)
    decision = publishing.decide(job, result.digest, adapter)
    if isinstance(decision, publishing.Published):
        metadata = decision.adapter.metadata
        draft.status.adapter_ref = ObjectRef(name=metadata.name, uid=metadata.uid)
        message = f"Adapter {metadata.name} names this artifact"
        draft.set(JobCondition.ADAPTER_PUBLISHED, "True", Reason.PUBLISHED, message)
        return (), _succeed(draft)
    if isinstance(decision, publishing.Taken):
        return (), _hold_back(draft, Reason.NAME_TAKEN, decision.message)
    if refusal is not None and refusal.cause == "forbidden":
        draft.set(JobCondition.ADAPTER_PUBLISHED, "Unknown", Reason.FORBIDDEN, refusal.message)
        return (), Phase.PUBLISHING
    if refusal is not None:
        is_taken = refusal.cause == "conflict"
        reason = Reason.NAME_TAKEN if is_taken else Reason.PUBLISH_REJECTED
        return (), _hold_back(draft, reason, refusal.message)
    apply = Apply(decision.manifest, names.MANAGER_PUBLISHER, force=decision.force)
    return (apply,), Phase.PUBLISHING


def record_result(draft: JobDraft, result: Result) -> None:
    """Show artifact and scores."""
    status = draft.status
    status.artifact = ArtifactStatus(
        uri=result.uri, digest=result.digest, size_bytes=result.size_bytes
    )
    status.metrics = [
        Score(name=s.name, base=_decimal(s.base), tuned=_decimal(s.tuned)) for s in result.metrics
    ]
    status.num_evaluated = result.num_evaluated
    if result.total_steps is not None:
        status.progress = Progress(
            step=result.total_steps,
            total_steps=result.total_steps,
            percent=100,
            loss=_decimal(result.final_loss),
            tokens_per_second=status.progress.tokens_per_second if status.progress else None,
            phase="done",
        )
    data = f"; {result.data}" if result.data else ""
    message = f"{result.uri} ({result.size_bytes} bytes){data}"
    draft.set(JobCondition.UPLOADED, "True", Reason.ARTIFACT_UPLOADED, message)


def fail(draft: JobDraft, child: Object, job_pods: Sequence[Object], log_tail: str) -> Phase:
    """End with what the Job, its last pod and that pod's log say."""
    return _fail(draft, failure.diagnose(child, job_pods, log_tail))


def fail_without_result(draft: JobDraft, problem: str) -> Phase:
    message = problem or "the pod ended well but left no result in the artifact store"
    return _fail(draft, Failure(reason=Reason.RESULT_MISSING, message=message))


def fail_lost(draft: JobDraft, job_name: str) -> Phase:
    message = f"Job {job_name} was removed before it ended, and it left no result"
    return _fail(draft, Failure(reason=Reason.JOB_LOST, message=message))


def fail_foreign_result(draft: JobDraft, result: Result, expected_uri: str) -> Phase:
    message = (
        f"the result names {result.uri} for job {result.job_uid}; this job's artifact lies at"
        f" {expected_uri}"
    )
    return _fail(draft, Failure(reason=Reason.ARTIFACT_INVALID, message=message))


def reject(draft: JobDraft, problem: acceptance.Problem) -> Phase:
    draft.set(JobCondition.RUNNING, "False", Reason.FINISHED, "it was never started")
    return _fail(draft, Failure(reason=problem.reason, message=problem.message))


def _fail(draft: JobDraft, why: Failure) -> Phase:
    draft.status.failure = why
    draft.set(JobCondition.UPLOADED, "False", Reason.NO_ARTIFACT, "the run left no artifact")
    draft.set(
        JobCondition.ADAPTER_PUBLISHED, "False", Reason.NO_ARTIFACT, "there is nothing to publish"
    )
    draft.set(JobCondition.SUCCEEDED, "False", why.reason, why.message)
    draft.status.completion_time = conditions.timestamp(draft.now)
    return Phase.FAILED


def _hold_back(draft: JobDraft, reason: Reason, message: str) -> Phase:
    draft.set(JobCondition.ADAPTER_PUBLISHED, "False", reason, message)
    return _succeed(draft)


def _succeed(draft: JobDraft) -> Phase:
    scores = ", ".join(f"{s.name} {s.base} → {s.tuned}" for s in draft.status.metrics or [])
    draft.set(JobCondition.SUCCEEDED, "True", Reason.COMPLETED, scores or "the run has ended well")
    draft.status.completion_time = conditions.timestamp(draft.now)
    return Phase.SUCCEEDED


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
