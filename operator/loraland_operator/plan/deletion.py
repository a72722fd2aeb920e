"""How an Adapter goes: first out of the registry, then its files, last the finalizer. Pure."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loraland_core import imports, names
from loraland_core.names import AdapterCondition, Phase, Reason
from loraland_core.resources import Adapter, AdapterStatus

from loraland_operator import manifests
from loraland_operator.plan import history, importing
from loraland_operator.plan.draft import Draft
from loraland_operator.plan.steps import AdapterPlan

if TYPE_CHECKING:
    from loraland_operator.plan.adapter import Observed

OUTSIDE_RETRY_S = 5.0


def prefixes_of(adapter: Adapter) -> tuple[str, ...]:
    """Return where the files lie that go with the Adapter; none under the policy Retain."""
    if adapter.spec.deletion_policy != "Delete":
        return ()
    found = named_prefixes(adapter)
    if adapter.spec.source.artifact is None:
        found.add(imports.prefix(adapter.metadata.uid))
    return tuple(sorted(found))


def named_prefixes(adapter: Adapter) -> set[str]:
    """Return the prefixes that an Adapter, of whatever policy, refers to; it may go back to each."""
    artifact = importing.artifact_of(adapter)
    digests = {artifact.digest if artifact else None, adapter.status.digest}
    named = {manifests.artifact_prefix(adapter, digest) for digest in digests if digest}
    return named | history.prefixes(adapter)


def mentions(obj: Mapping[str, Any], prefix: str) -> bool:
    """Whether an Adapter that cannot be read may refer to the prefix: it has its digest in it."""
    return prefix.rstrip("/").rpartition("/")[2] in json.dumps(obj)


def plan(adapter: Adapter, observed: "Observed", draft: Draft[AdapterStatus]) -> AdapterPlan:
    if names.FINALIZER not in adapter.metadata.finalizers:
        return AdapterPlan()
    if observed.registry_problem:
        return _wait(draft, Reason.REGISTRY_UNREACHABLE, observed.registry_problem)
    if observed.store_problem:
        return _wait(draft, Reason.ARTIFACT_STORE_UNREACHABLE, observed.store_problem)
    return AdapterPlan(
        withdraw=observed.record is not None,
        delete_prefixes=observed.unshared_prefixes,
        remove_finalizer=True,
    )


def _wait(draft: Draft[AdapterStatus], reason: Reason, problem: str) -> AdapterPlan:
    """Say what holds the deletion up; it is tried again for as long as it takes."""
    message = f"being deleted, but {problem}; to give up, remove the finalizer {names.FINALIZER}"
    draft.set(AdapterCondition.REGISTERED, "Unknown", reason, message)
    draft.set(AdapterCondition.READY, "False", reason, message)
    return AdapterPlan(
        status=draft.finish(Phase.TERMINATING),
        notes=draft.notes(),
        requeue_after_s=OUTSIDE_RETRY_S,
    )
