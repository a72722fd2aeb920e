"""Whether a FineTuneJob can be started at all. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loraland_core import names
from loraland_core.names import JobCondition, Reason
from loraland_core.resources import FineTuneJob, FineTuneJobStatus

from loraland_operator import manifests
from loraland_operator.plan.draft import Draft

if TYPE_CHECKING:
    from loraland_operator.plan.finetunejob import Observed


@dataclass(frozen=True)
class Problem:
    """Why a job is not started; ``is_final`` if nobody can cure it without another job."""

    reason: Reason
    message: str
    is_final: bool = False


def is_of(job: FineTuneJob, child: Mapping[str, Any]) -> bool:
    """Return whether the batch/v1 Job of our name was made for this very FineTuneJob."""
    labels = child["metadata"].get("labels") or {}
    return labels.get(names.LABEL_JOB_UID) == job.metadata.uid


def find_problem(job: FineTuneJob, observed: "Observed") -> Problem | None:
    """Return what stands in the way, the gravest first."""
    entry = observed.entry
    if entry is None:
        known = ", ".join(observed.known_base_models)
        return Problem(
            Reason.UNKNOWN_BASE_MODEL,
            f"spec.baseModel: no base model {job.spec.base_model!r} in the catalogue;"
            f" it knows: {known}",
        )
    if job.spec.lora.rank > entry.limits.max_rank:
        return Problem(
            Reason.RANK_OVER_LIMIT,
            f"spec.lora.rank: {job.spec.lora.rank} is over the limit of {entry.limits.max_rank}"
            f" for {job.spec.base_model}; lower it, or raise limits.maxRank in the catalogue",
        )
    for field, name in (observed.missing_secrets or {}).items():
        return Problem(
            Reason.SECRET_NOT_FOUND,
            f"{field}: there is no Secret {name!r} in namespace {job.metadata.namespace!r};"
            " create it, the job then starts by itself",
        )
    if observed.refusal is not None:
        is_invalid = observed.refusal.cause == "invalid"
        return Problem(
            Reason.INVALID_SPEC if is_invalid else Reason.FORBIDDEN,
            f"the API server refused the {observed.refusal.kind}: {observed.refusal.message}",
            is_final=is_invalid,
        )
    return _find_size_problem(job, observed)


def _find_size_problem(job: FineTuneJob, observed: "Observed") -> Problem | None:
    assert observed.entry is not None
    job_file = manifests.build_job_file(job, observed.entry, observed.settings.store)
    size_bytes = len(job_file.encode())
    if size_bytes <= manifests.MAX_JOB_FILE_BYTES:
        return None
    return Problem(
        Reason.INVALID_SPEC,
        f"spec.dataset.inline: the job is {size_bytes} bytes, more than the"
        f" {manifests.MAX_JOB_FILE_BYTES} that fit into a ConfigMap; put the rows into S3",
        is_final=True,
    )


def accept(draft: Draft[FineTuneJobStatus]) -> None:
    draft.set(JobCondition.ACCEPTED, "True", Reason.SPEC_ACCEPTED, "the job can be run")


def reject(draft: Draft[FineTuneJobStatus], problem: Problem) -> None:
    draft.set(JobCondition.ACCEPTED, "False", problem.reason, problem.message)


def wait_for_name(child: Mapping[str, Any], draft: Draft[FineTuneJobStatus]) -> tuple[()]:
    """Say that a Job of another owner has the name; one of ours that is going away gives it up."""
    metadata = child["metadata"]
    if names.LABEL_JOB in (metadata.get("labels") or {}):
        draft.set(
            JobCondition.RUNNING,
            "False",
            Reason.WAITING_FOR_POD,
            f"the Job {metadata['name']} of an earlier FineTuneJob is still being removed",
        )
        return ()
    draft.set(
        JobCondition.ACCEPTED,
        "False",
        Reason.NAME_TAKEN,
        f"metadata.name: a Job {metadata['name']} that is not ours exists in this namespace;"
        " delete it, or choose another name",
    )
    return ()
