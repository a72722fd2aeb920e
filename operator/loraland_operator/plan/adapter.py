"""The plan of an Adapter: verified, compatible, registered, ready. Pure.

Nothing here depends on what happened, only on what is there; see ``deletion`` for the way out.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from loraland_core import conditions, names
from loraland_core.artifacts import Manifest
from loraland_core.catalogue import BaseModelEntry
from loraland_core.keys import AdapterRecord
from loraland_core.names import AdapterCondition, Phase, Reason
from loraland_core.resources import Adapter, AdapterStatus, Condition

from loraland_operator.plan import deletion, fleet, history, importing
from loraland_operator.plan.draft import Draft
from loraland_operator.plan.fleet import Fleet
from loraland_operator.plan.steps import AdapterPlan

AdapterDraft = Draft[AdapterStatus]

INSTANCES_EVERY_S = 30.0
REJECTED_RETRY_S = 30.0
OUTSIDE_RETRY_S = 5.0


@dataclass(frozen=True)
class Verification:
    """What the artifact store says about the digest of the spec.

    Exactly one of ``manifest`` and ``refusal`` is there, or ``problem`` if the store is away.
    """

    manifest: Manifest | None = None
    refusal: tuple[str, str] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Observed:
    """The world around one Adapter."""

    entry: BaseModelEntry | None = None
    known_base_models: tuple[str, ...] = ()
    # None where the status already holds what was verified.
    verification: Verification | None = None
    # Only where the files are to be imported and have not been yet.
    import_: importing.Import | None = None
    uri: str = ""
    record: AdapterRecord | None = None
    registry_problem: str = ""
    fleet: Fleet = field(default_factory=Fleet)
    instances_written_at: datetime | None = None
    # For a deletion: prefixes of files that no other Adapter names.
    unshared_prefixes: tuple[str, ...] = ()
    store_problem: str = ""


def needs_verification(adapter: Adapter) -> bool:
    """Return whether the artifact of the spec must be looked at in the store."""
    artifact = importing.artifact_of(adapter)
    if artifact is None or adapter.metadata.deletion_timestamp:
        return False
    status = adapter.status
    return status.digest != artifact.digest or not conditions.is_true(
        status.conditions, AdapterCondition.ARTIFACT_VERIFIED
    )


def build_record(adapter: Adapter) -> AdapterRecord | None:
    """Return the registry record that spec and verified status ask for; None for no record."""
    status = adapter.status
    is_fit = adapter.spec.enabled and conditions.is_true(
        status.conditions, AdapterCondition.COMPATIBLE
    )
    if not is_fit or adapter.metadata.deletion_timestamp or not status.digest:
        return None
    spec = adapter.spec
    return AdapterRecord(
        base_model=spec.base_model,
        digest=status.digest,
        uri=status.uri or "",
        size_bytes=status.size_bytes or 0,
        rank=status.rank or 0,
        target_modules=status.target_modules or [],
        pinned=spec.pinned,
        priority=spec.priority,
        prefetch=spec.prefetch,
        tenants=spec.allowed_tenants or [adapter.metadata.namespace],
    )


def plan(adapter: Adapter, observed: Observed, now: datetime) -> AdapterPlan:
    draft: AdapterDraft = Draft(
        adapter.status, list(AdapterCondition), generation=adapter.metadata.generation, now=now
    )
    if adapter.metadata.deletion_timestamp:
        return deletion.plan(adapter, observed, draft)
    verdict = _accept(adapter, observed, draft)
    if verdict is None and observed.import_ is not None:
        return importing.plan(adapter, observed.import_, draft)
    verdict = verdict or _verify(adapter, observed, draft) or _fit(adapter, observed, draft)
    if verdict is None:
        return _register(adapter, observed, draft)
    phase, requeue_after_s = verdict
    first = _first_not_true(draft)
    message = first.message
    if observed.record is not None:
        message = history.still_served(observed.record.digest)
    draft.set(AdapterCondition.READY, "False", first.reason, message)
    return AdapterPlan(
        status=draft.finish(phase), notes=draft.notes(), requeue_after_s=requeue_after_s
    )


# What ends the way to registration: a phase and when to look again. None: go on.
Verdict = tuple[Phase, float | None] | None


def _accept(adapter: Adapter, observed: Observed, draft: AdapterDraft) -> Verdict:
    if observed.entry is None:
        known = ", ".join(observed.known_base_models)
        draft.set(
            AdapterCondition.ACCEPTED,
            "False",
            Reason.UNKNOWN_BASE_MODEL,
            f"spec.baseModel: no base model {adapter.spec.base_model!r} in the catalogue;"
            f" it knows: {known}",
        )
        return Phase.REJECTED, REJECTED_RETRY_S
    draft.set(AdapterCondition.ACCEPTED, "True", Reason.SPEC_ACCEPTED, "the spec is complete")
    return None


def _verify(adapter: Adapter, observed: Observed, draft: AdapterDraft) -> Verdict:
    """Take over what the manifest says once its files are known to be there."""
    found = observed.verification
    type_ = AdapterCondition.ARTIFACT_VERIFIED
    if found is None:
        draft.set(type_, "True", Reason.ARTIFACT_VALID, draft.find(type_).message)
        return None
    if found.problem:
        draft.set(type_, "Unknown", Reason.ARTIFACT_STORE_UNREACHABLE, found.problem)
        return Phase.PENDING, OUTSIDE_RETRY_S
    if found.refusal is not None:
        reason, message = found.refusal
        draft.set(type_, "False", reason, message)
        draft.set(AdapterCondition.COMPATIBLE, "Unknown", Reason.PENDING)
        return Phase.REJECTED, REJECTED_RETRY_S
    manifest = found.manifest
    assert manifest is not None
    status = draft.status
    status.digest, status.uri = manifest.digest, observed.uri
    status.rank, status.size_bytes = manifest.rank, manifest.size_bytes
    status.target_modules = manifest.target_modules[:64]
    num_files = len(manifest.served_files)
    draft.set(type_, "True", Reason.ARTIFACT_VALID, f"{num_files} files at {observed.uri}")
    return None


def _fit(adapter: Adapter, observed: Observed, draft: AdapterDraft) -> Verdict:
    """Hold base model and rank against the catalogue."""
    assert observed.entry is not None
    type_ = AdapterCondition.COMPATIBLE
    wanted = adapter.spec.base_model
    manifest = observed.verification.manifest if observed.verification else None
    if manifest is not None and manifest.base_model != wanted:
        message = f"the artifact was trained on {manifest.base_model}, spec.baseModel is {wanted}"
        draft.set(type_, "False", Reason.BASE_MODEL_MISMATCH, message)
        return Phase.REJECTED, None
    if manifest is None and draft.find(type_).reason == Reason.BASE_MODEL_MISMATCH:
        return Phase.REJECTED, None
    rank, limit = draft.status.rank or 0, observed.entry.limits.max_rank
    if rank > limit:
        message = f"rank {rank} is over the limit of {limit} for {wanted} in the catalogue"
        draft.set(type_, "False", Reason.RANK_OVER_LIMIT, message)
        return Phase.REJECTED, REJECTED_RETRY_S
    draft.set(type_, "True", Reason.BASE_MODEL_MATCHES, f"rank {rank} on {wanted}")
    return None


def _register(adapter: Adapter, observed: Observed, draft: AdapterDraft) -> AdapterPlan:
    if observed.registry_problem:
        return _without_registry(observed, draft)
    if not adapter.spec.enabled:
        return _disable(observed, draft)
    wanted = build_record(adapter.model_copy(update={"status": draft.status}))
    assert wanted is not None, "it is enabled and compatible"
    record = observed.record
    is_registered = record is not None and wanted.same_content(record)
    if not is_registered and names.FINALIZER not in adapter.metadata.finalizers:
        return AdapterPlan(add_finalizer=True, status=draft.finish(Phase.PENDING))
    if record is None or not is_registered:
        return AdapterPlan(publish=wanted, status=draft.finish(Phase.PENDING))
    return _show_readiness(adapter, record, observed, draft)


def _show_readiness(
    adapter: Adapter, record: AdapterRecord, observed: Observed, draft: AdapterDraft
) -> AdapterPlan:
    status = draft.status
    id_ = fleet.adapter_id(adapter.metadata.namespace, adapter.metadata.name)
    status.registered_revision = str(record.revision)
    draft.set(AdapterCondition.REGISTERED, "True", Reason.RECORD_WRITTEN, "replicas can read it")
    news = history.record(adapter, status, draft.now)
    readiness = fleet.judge(observed.fleet, id_, record)
    draft.set(
        AdapterCondition.READY,
        "True" if readiness.is_ready else "False",
        readiness.reason,
        readiness.message,
    )
    status.replicas = readiness.replicas
    if readiness.is_ready:
        history.record_ready(status, draft.now)
    requeue_after_s = None
    instances = fleet.build_instances(observed.fleet, id_)
    if instances != (adapter.status.instances or []):
        wait_s = _instances_wait_s(observed, draft.now)
        if wait_s > 0:
            requeue_after_s = wait_s
        else:
            status.instances = instances
    phase = Phase.READY if readiness.is_ready else Phase.PENDING
    if readiness.reason is Reason.REJECTED_BY_REPLICA:
        phase = Phase.REJECTED
    return AdapterPlan(
        status=draft.finish(phase), notes=news + draft.notes(), requeue_after_s=requeue_after_s
    )


def _instances_wait_s(observed: Observed, now: datetime) -> float:
    """Return how long the list of instances must wait: it changes often and nobody waits for it."""
    if observed.instances_written_at is None:
        return 0.0
    due = observed.instances_written_at + timedelta(seconds=INSTANCES_EVERY_S)
    return max(0.0, (due - now).total_seconds())


def _disable(observed: Observed, draft: AdapterDraft) -> AdapterPlan:
    text = "spec.enabled is false"
    draft.set(AdapterCondition.REGISTERED, "False", Reason.DISABLED, text)
    draft.set(AdapterCondition.READY, "False", Reason.DISABLED, text)
    draft.status.registered_revision = None
    draft.status.replicas = draft.status.instances = None
    status = draft.finish(Phase.DISABLED)
    if observed.record is not None:
        return AdapterPlan(withdraw=True, status=status)
    return AdapterPlan(status=status, notes=draft.notes())


def _without_registry(observed: Observed, draft: AdapterDraft) -> AdapterPlan:
    message = f"{observed.registry_problem}; replicas go on with what they know"
    draft.set(AdapterCondition.REGISTERED, "Unknown", Reason.REGISTRY_UNREACHABLE, message)
    draft.set(AdapterCondition.READY, "Unknown", Reason.REGISTRY_UNREACHABLE, message)
    return AdapterPlan(
        status=draft.finish(Phase.PENDING), notes=draft.notes(), requeue_after_s=OUTSIDE_RETRY_S
    )


def _first_not_true(draft: AdapterDraft) -> Condition:
    """Return the first condition on the way that is not true."""
    order = (
        AdapterCondition.ACCEPTED,
        AdapterCondition.ARTIFACT_VERIFIED,
        AdapterCondition.COMPATIBLE,
    )
    return next(draft.find(t) for t in order if not draft.is_true(t))


def keep_revision(adapter: Adapter, record: AdapterRecord) -> AdapterRecord:
    """Return the record under the revision that the status remembers, if it is still the same.

    When the registry was lost and is written again, unchanged adapters keep their revision, so that
    they stay Ready without thousands of status writes.
    """
    registered = conditions.find_condition(adapter.status.conditions, AdapterCondition.REGISTERED)
    remembered = adapter.status.registered_revision
    if (
        registered is None
        or registered.observed_generation != adapter.metadata.generation
        or not (remembered or "").isdigit()
    ):
        return record
    return record.model_copy(update={"revision": int(remembered or 0)})
