"""What in the artifact store nobody needs any more: a pure decision over a listing. No I/O.

Removed are uploads that were never finished, checkpoints of jobs that have ended, and digests beyond
an Adapter's revision history that no Adapter names. Files whose Adapter is gone stay: its policy said
whether they go with it. Everything that is young stays, and everything of a job that may still publish.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from loraland_core.artifacts import MANIFEST_FILE
from loraland_core.store import StoredObject, UnfinishedUpload

# Longer than any upload lasts, and than an operator that was away needs to publish a result.
MIN_AGE = timedelta(hours=24)
# A job's last pod may still be writing when its end is known.
MIN_CHECKPOINT_AGE = timedelta(hours=1)

_VERSION = re.compile(r"^adapters/(?P<namespace>[^/]+)/(?P<name>[^/]+)/(?P<digest>[0-9a-f]{64})/")
_CHECKPOINT = re.compile(r"^jobs/(?P<uid>[^/]+)/checkpoints/")


class Why(StrEnum):
    """Why something goes."""

    ABANDONED_UPLOAD = "abandoned upload"
    OLD_CHECKPOINT = "checkpoint of an ended job"
    BEYOND_HISTORY = "beyond the revision history"


@dataclass(frozen=True)
class Named:
    """What an Adapter refers to: digests under the name that they were uploaded with."""

    namespace: str
    name: str
    digests: frozenset[str]
    # How many digests are kept beyond those; None: it has no say in that.
    history_limit: int | None = None


@dataclass(frozen=True)
class Observed:
    """The cluster's side. ``namespaces`` is None where all of them are seen."""

    adapters: tuple[Named, ...] = ()
    # Jobs that have not ended, and the adapters (namespace, name) that they may publish.
    live_jobs: frozenset[str] = frozenset()
    live_names: frozenset[tuple[str, str]] = frozenset()
    ended_jobs: frozenset[str] = frozenset()
    namespaces: frozenset[str] | None = None


@dataclass(frozen=True)
class Removal:
    """A folder that goes, as it was seen: a second plan has the very same, or it has changed."""

    prefix: str
    why: Why
    num_objects: int
    size_bytes: int
    newest: datetime


@dataclass
class _Folder:
    objects: list[StoredObject] = field(default_factory=list)

    @property
    def newest(self) -> datetime:
        return max(o.modified_at for o in self.objects)

    def find(self, name: str) -> StoredObject | None:
        return next((o for o in self.objects if o.key.endswith(f"/{name}")), None)


def plan(objects: Iterable[StoredObject], observed: Observed, now: datetime) -> list[Removal]:
    """Return what goes, in the order of its prefixes."""
    versions: dict[tuple[str, str, str], _Folder] = defaultdict(_Folder)
    checkpoints: dict[str, _Folder] = defaultdict(_Folder)
    for found in objects:
        if match := _VERSION.match(found.key):
            versions[match["namespace"], match["name"], match["digest"]].objects.append(found)
        elif match := _CHECKPOINT.match(found.key):
            checkpoints[match["uid"]].objects.append(found)
    removals = [
        *_plan_checkpoints(checkpoints, observed, now),
        *_plan_versions(versions, observed, now),
    ]
    return sorted(removals, key=lambda r: r.prefix)


def is_abandoned(upload: UnfinishedUpload, observed: Observed, now: datetime) -> bool:
    """Return whether an upload in parts will not be completed any more."""
    if now - upload.begun_at < MIN_AGE:
        return False
    kind, first, second = [*upload.key.split("/"), "", ""][:3]
    if kind == "adapters":
        return _is_ours((first, second), observed)
    return _has_ended(first, observed)


def _plan_checkpoints(
    checkpoints: Mapping[str, _Folder], observed: Observed, now: datetime
) -> Iterable[Removal]:
    for uid, folder in checkpoints.items():
        if _has_ended(uid, observed) and now - folder.newest >= MIN_CHECKPOINT_AGE:
            yield _removal(f"jobs/{uid}/checkpoints/", Why.OLD_CHECKPOINT, folder)


def _has_ended(job_uid: str, observed: Observed) -> bool:
    # A job that is not there was deleted, if we would see it.
    is_deleted = observed.namespaces is None and job_uid not in observed.live_jobs
    return job_uid in observed.ended_jobs or is_deleted


def _plan_versions(
    versions: Mapping[tuple[str, str, str], _Folder], observed: Observed, now: datetime
) -> Iterable[Removal]:
    named, limits = _kept(observed)
    earlier: dict[tuple[str, str], list[tuple[datetime, str, _Folder]]] = defaultdict(list)
    for (namespace, name, digest), folder in versions.items():
        owner = (namespace, name)
        if not _is_ours(owner, observed) or digest in named[owner]:
            continue
        manifest = folder.find(MANIFEST_FILE)
        prefix = f"adapters/{namespace}/{name}/{digest}/"
        if manifest is not None:
            earlier[owner].append((manifest.modified_at, prefix, folder))
        elif now - folder.newest >= MIN_AGE:
            yield _removal(prefix, Why.ABANDONED_UPLOAD, folder)
    for owner, found in earlier.items():
        if owner not in limits:
            # No Adapter: what it left behind was meant to stay, or was held back by its gate.
            continue
        for _, prefix, folder in sorted(found, key=_by_age, reverse=True)[limits[owner] :]:
            if now - folder.newest >= MIN_AGE:
                yield _removal(prefix, Why.BEYOND_HISTORY, folder)


def _kept(
    observed: Observed,
) -> tuple[dict[tuple[str, str], set[str]], dict[tuple[str, str], int]]:
    """Return, by owner, the digests that stay, and how many others do; no number: all of them."""
    named: dict[tuple[str, str], set[str]] = defaultdict(set)
    limits: dict[tuple[str, str], int] = {}
    for adapter in observed.adapters:
        owner = (adapter.namespace, adapter.name)
        named[owner] |= adapter.digests
        if adapter.history_limit is not None:
            limits[owner] = max(limits.get(owner, 0), adapter.history_limit)
    return named, limits


def _by_age(version: tuple[datetime, str, _Folder]) -> tuple[datetime, str]:
    return version[0], version[1]


def _is_ours(owner: tuple[str, str], observed: Observed) -> bool:
    """Return whether we see all that may name the adapter, and no job may publish it now."""
    is_seen = observed.namespaces is None or owner[0] in observed.namespaces
    return is_seen and owner not in observed.live_names


def _removal(prefix: str, why: Why, folder: _Folder) -> Removal:
    return Removal(
        prefix=prefix,
        why=why,
        num_objects=len(folder.objects),
        size_bytes=sum(o.size_bytes for o in folder.objects),
        newest=folder.newest,
    )
