"""The versions of an Adapter that were rolled out, the current one first. Pure.

To go back, name an earlier one in ``spec.source.artifact``; nothing else remembers how it was.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from loraland_core import artifacts, conditions, names
from loraland_core.names import AdapterCondition, Phase, Reason
from loraland_core.resources import Adapter, AdapterStatus
from loraland_core.resources.adapter import Revision

from loraland_operator.plan.steps import Note

IMPORT = "Import"
SPEC = "Spec"
ROLLBACK = "Rollback to "
_SHOWN_DIGITS = 12
_ORDER = list(AdapterCondition).index(AdapterCondition.REGISTERED)


def record(adapter: Adapter, status: AdapterStatus, now: datetime) -> tuple[Note, ...]:
    """Put the version that replicas can read now in front; return what there is to tell of it."""
    earlier = status.history or []
    assert status.digest, "what is registered has a digest"
    name = _uploaded_name(adapter)
    if earlier and (earlier[0].digest, earlier[0].name) == (status.digest, name):
        status.history = _cut(earlier, adapter)
        return ()
    before = next((r for r in earlier if (r.digest, r.name) == (status.digest, name)), None)
    current = Revision(
        digest=status.digest,
        name=name,
        cause=_cause(adapter, status.digest, before),
        registered_at=conditions.timestamp(now),
    )
    status.history = _cut([current, *(r for r in earlier if r is not before)], adapter)
    if not earlier:
        return ()
    reason = Reason.ROLLED_OUT if before is None else Reason.ROLLED_BACK
    verb = "takes the place of" if before is None else "comes back for"
    message = f"{_describe(current)} {verb} {_describe(earlier[0])}"
    return (Note("Normal", reason, message, _ORDER),)


def still_served(digest: str) -> str:
    """Say that what the spec asks for has to wait, and what is served meanwhile."""
    return f"version {digest[:_SHOWN_DIGITS]} is served meanwhile"


def record_ready(status: AdapterStatus, now: datetime) -> None:
    """Note when the current version was served first."""
    if status.history and status.history[0].ready_at is None:
        current = status.history[0].model_copy(update={"ready_at": conditions.timestamp(now)})
        status.history = [current, *status.history[1:]]


def prefixes(adapter: Adapter) -> set[str]:
    """Return where the files of all its versions lie."""
    namespace, own = adapter.metadata.namespace, adapter.metadata.name
    return {
        artifacts.adapter_prefix(namespace, r.name or own, r.digest)
        for r in adapter.status.history or []
    }


def waited_s(
    obj: Mapping[str, Any], status: Mapping[str, Any], now: datetime
) -> tuple[str, float] | None:
    """Return what somebody waited for whose version ``status`` shows to be ready first, how long.

    From the creation of the FineTuneJob that published it, or of the Adapter for its first version.
    A later change of the spec has no time of its own.
    """
    after = status.get("history") or []
    was = obj.get("status") or {}
    before = was.get("history") or []
    if not after or not after[0].get("readyAt") or (not before and was.get("phase") == Phase.READY):
        return None
    if before and before[0].get("readyAt") and before[0]["digest"] == after[0]["digest"]:
        return None
    metadata, kind = obj["metadata"], names.ADAPTER
    is_first = all(revision["digest"] == after[0]["digest"] for revision in before)
    begun = metadata.get("creationTimestamp") if is_first else None
    if after[0]["cause"].startswith(names.FINE_TUNE_JOB):
        kind = names.FINE_TUNE_JOB
        begun = (metadata.get("annotations") or {}).get(names.ANNOTATION_JOB_CREATED)
    if not begun:
        return None
    return kind, max(0.0, (now - conditions.parse_timestamp(begun)).total_seconds())


def _cause(adapter: Adapter, digest: str, before: Revision | None) -> str:
    metadata, source = adapter.metadata, adapter.spec.source
    if source.artifact is None:
        return IMPORT
    known = before.cause.removeprefix(ROLLBACK) if before else ""
    if metadata.annotations.get(names.ANNOTATION_DIGEST) == digest:
        job = f"{names.FINE_TUNE_JOB}/{metadata.labels.get(names.LABEL_JOB, '')}"
        # What it published comes once; somebody who names it later goes back to it.
        if job != known:
            return job
    if before is not None:
        return f"{ROLLBACK}{known}"
    return SPEC


def _uploaded_name(adapter: Adapter) -> str | None:
    """Return the name under which the files lie, if it is not the Adapter's own."""
    artifact = adapter.spec.source.artifact
    name = artifact.name if artifact else None
    return None if name == adapter.metadata.name else name


def _cut(history: list[Revision], adapter: Adapter) -> list[Revision]:
    return history[: adapter.spec.revision_history_limit + 1]


def _describe(revision: Revision) -> str:
    cause = revision.cause.removeprefix(ROLLBACK)
    origin = {IMPORT: "imported", SPEC: "set by hand"}.get(cause, f"of {cause}")
    return f"version {revision.digest[:_SHOWN_DIGITS]} ({origin})"
