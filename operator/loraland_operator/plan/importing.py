"""How an Adapter's files come from elsewhere: a Job fetches them, its result names the digest. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from loraland_core import imports
from loraland_core.imports import ImportResult
from loraland_core.names import AdapterCondition, Phase, Reason
from loraland_core.resources import Adapter, AdapterStatus
from loraland_core.resources.adapter import ArtifactSource, Imported

from loraland_operator.plan import failure, history, pods
from loraland_operator.plan.draft import Draft
from loraland_operator.plan.pods import Object
from loraland_operator.plan.steps import AdapterPlan, Apply

OUTSIDE_RETRY_S = 5.0
REFUSED_RETRY_S = 30.0


@dataclass(frozen=True)
class Import:
    """What is there of the import from the source that the spec names."""

    job: Object | None = None
    pods: Sequence[Object] = ()
    result: ImportResult | None = None
    # The artifact store is away.
    store_problem: str = ""
    # What the API server said to our Job, if it did not take it.
    refusal: str = ""
    # What to apply where there is no Job yet.
    applies: tuple[Apply, ...] = ()


def artifact_of(adapter: Adapter) -> ArtifactSource | None:
    """Return the artifact to serve: the one named, or what was imported; None before that."""
    source, imported = adapter.spec.source, adapter.status.imported
    if source.artifact is not None:
        return source.artifact
    if imported is None or imported.source_hash != imports.source_hash(source):
        return None
    return ArtifactSource(digest=imported.digest)


def plan(adapter: Adapter, found: Import, draft: Draft[AdapterStatus]) -> AdapterPlan:
    """Return the next step of an import that has not been taken over yet."""
    if found.result is not None:
        draft.status.imported = Imported(
            source_hash=imports.source_hash(adapter.spec.source), digest=found.result.digest
        )
        return _wait(draft, f"imported as {found.result.digest[:12]}", requeue_after_s=0.0)
    if found.store_problem:
        type_, reason = AdapterCondition.ARTIFACT_VERIFIED, Reason.ARTIFACT_STORE_UNREACHABLE
        draft.set(type_, "Unknown", reason, found.store_problem)
        return _finish(draft, Phase.PENDING, OUTSIDE_RETRY_S)
    if found.refusal:
        return _fail(draft, f"the import's Job was refused: {found.refusal}", REFUSED_RETRY_S)
    if found.job is None:
        return AdapterPlan(apply=found.applies, status=draft.finish(Phase.PENDING))
    return _follow(found.job, found.pods, draft)


def _follow(job: Object, job_pods: Sequence[Object], draft: Draft[AdapterStatus]) -> AdapterPlan:
    end = pods.job_end(job)
    if end == "Failed":
        cause = failure.diagnose(job, job_pods, "")
        again = f"to try again, delete Job {job['metadata']['name']}"
        return _fail(draft, f"{cause.reason}: {cause.message}; {again}", None)
    if end == "Complete":
        # The store may show them a moment later; if not, the sweep took them long ago.
        again = f"if it stays away, delete Job {job['metadata']['name']} to import again"
        message = f"the import is done, its artifact not there; {again}"
        return _wait(draft, message, OUTSIDE_RETRY_S)
    _, obstacle = pods.find_obstacle(job_pods)
    return _wait(draft, obstacle or "a pod fetches, checks and uploads the files", None)


def _wait(draft: Draft[AdapterStatus], message: str, requeue_after_s: float | None) -> AdapterPlan:
    draft.set(AdapterCondition.ARTIFACT_VERIFIED, "Unknown", Reason.IMPORTING, message)
    return _finish(draft, Phase.PENDING, requeue_after_s)


def _fail(draft: Draft[AdapterStatus], message: str, requeue_after_s: float | None) -> AdapterPlan:
    draft.set(AdapterCondition.ARTIFACT_VERIFIED, "False", Reason.IMPORT_FAILED, message)
    return _finish(draft, Phase.REJECTED, requeue_after_s)


def _finish(
    draft: Draft[AdapterStatus], phase: Phase, requeue_after_s: float | None
) -> AdapterPlan:
    verified = draft.find(AdapterCondition.ARTIFACT_VERIFIED)
    message = verified.message
    if draft.status.digest:
        message = history.still_served(draft.status.digest)
    draft.set(AdapterCondition.READY, "False", verified.reason, message)
    return AdapterPlan(
        status=draft.finish(phase), notes=draft.notes(), requeue_after_s=requeue_after_s
    )
