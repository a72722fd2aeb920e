"""Keeps the artifact store clean: lists, lets ``sweep`` decide, looks again, removes.

``python -m loraland_operator.housekeeping`` shows what would go; with ``--remove`` it goes. The
operator that leads does the same by itself every ``LORALAND_SWEEP_EVERY_S``.
"""

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from loraland_core import artifacts, logs, sweep
from loraland_core.errors import InvalidInput, LoraLandError
from loraland_core.resources import Adapter, FineTuneJob
from loraland_core.store import Store, StoredObject, UnfinishedUpload
from loraland_core.sweep import Named, Observed, Removal
from pydantic import ValidationError

from loraland_operator import cluster as kubernetes
from loraland_operator import config, manifests
from loraland_operator.cluster import Cluster
from loraland_operator.plan.finetunejob import has_ended
from loraland_operator.plan.importing import artifact_of

log = logging.getLogger(__name__)

ROOTS = ("adapters/", "jobs/")
M = TypeVar("M", Adapter, FineTuneJob)


@dataclass(frozen=True)
class Report:
    """What a sweep found, and how much of it is gone."""

    removals: tuple[Removal, ...]
    uploads: tuple[UnfinishedUpload, ...]
    num_removed: int = 0


class Housekeeping:
    """Sweeps the store of one cluster. The bucket's prefix belongs to this cluster alone."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        store: Store,
        namespaces: tuple[str, ...],
        clock: Callable[[], datetime],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._namespaces = namespaces
        self._clock = clock
        # Asked before each removal; whoever may not write any more does not return from it.
        self.before_write: Callable[[], None] = lambda: None

    async def run(self, every_s: float, *, is_dry: bool) -> None:
        """Sweep now and then until cancelled."""
        while True:
            # The jitter keeps a restarted operator from sweeping at the same moment again and again.
            await asyncio.sleep(every_s * random.uniform(0.5, 1.5))  # noqa: S311 (jitter)
            try:
                await self.sweep(is_dry=is_dry)
            except LoraLandError as error:
                log.warning("the artifact store is not swept this time: %s", error)

    async def sweep(self, *, is_dry: bool) -> Report:
        """Find what nobody needs; remove it unless ``is_dry``."""
        observed = await self._observe()
        found = await asyncio.to_thread(self._list, ROOTS)
        removals = sweep.plan(found, observed, self._clock())
        uploads = await asyncio.to_thread(self._find_uploads, observed)
        for removal in removals:
            log.info(
                "sweep: %s: %s, %d objects, %d bytes%s", removal.prefix, removal.why,
                removal.num_objects, removal.size_bytes, " (kept: dry run)" if is_dry else "",
            )  # fmt: skip
        if is_dry:
            return Report(tuple(removals), tuple(uploads))
        num_removed = 0
        for removal in removals:
            num_removed += await self._remove(removal)
        for upload in uploads:
            self.before_write()
            await asyncio.to_thread(self._store.abort_upload, upload)
        return Report(tuple(removals), tuple(uploads), num_removed)

    async def _remove(self, removal: Removal) -> bool:
        """Remove a folder if a second look at cluster and store comes to the same."""
        owner = "/".join(removal.prefix.split("/")[:-2]) + "/"
        observed = await self._observe()
        found = await asyncio.to_thread(self._list, (owner,))
        if removal not in sweep.plan(found, observed, self._clock()):
            log.info("sweep: %s has changed meanwhile and stays", removal.prefix)
            return False
        self.before_write()
        await asyncio.to_thread(self._delete, removal.prefix)
        return True

    def _delete(self, prefix: str) -> None:
        # First what makes it an artifact: whatever stops us then, the rest is an abandoned upload.
        self._store.delete(prefix + artifacts.MANIFEST_FILE)
        self._store.delete_prefix(prefix)

    def _list(self, prefixes: tuple[str, ...]) -> list[StoredObject]:
        return [found for prefix in prefixes for found in self._store.find_objects(prefix)]

    def _find_uploads(self, observed: Observed) -> list[UnfinishedUpload]:
        try:
            found = [upload for root in ROOTS for upload in self._store.find_uploads(root)]
        except LoraLandError as error:
            # Not every store lists them, and not every key may; the rest is swept all the same.
            log.warning("sweep: uploads in parts cannot be listed: %s", error)
            return []
        now = self._clock()
        return [u for u in found if sweep.is_abandoned(u, observed, now)]

    async def _observe(self) -> Observed:
        """Ask the API server itself; raise where it does not answer or an object is unreadable."""
        adapters = [_parse(Adapter, obj) for obj in await self._objects(kubernetes.ADAPTERS)]
        # An import uploads as a job does: its digest is known when all is there.
        live_names = {
            (a.metadata.namespace, a.metadata.name) for a in adapters if artifact_of(a) is None
        }
        live_jobs, ended_jobs = set(), set()
        for obj in await self._objects(kubernetes.FINE_TUNE_JOBS):
            job = _parse(FineTuneJob, obj)
            if has_ended(job.status):
                ended_jobs.add(job.metadata.uid)
                continue
            live_jobs.add(job.metadata.uid)
            live_names.add((job.metadata.namespace, manifests.adapter_name(job)))
        return Observed(
            adapters=tuple(named for adapter in adapters for named in read_adapter(adapter)),
            live_jobs=frozenset(live_jobs),
            live_names=frozenset(live_names),
            ended_jobs=frozenset(ended_jobs),
            namespaces=frozenset(self._namespaces) if self._namespaces else None,
        )

    async def _objects(self, resource: kubernetes.Resource) -> list[kubernetes.Object]:
        found: list[kubernetes.Object] = []
        for namespace in self._namespaces or ("",):
            found += await self._cluster.list(resource, namespace)
        return found


def _parse(model: type[M], obj: kubernetes.Object) -> M:
    """Return the object; one that cannot be read may name anything, so that nothing is removed."""
    try:
        return model.model_validate(obj)
    except ValidationError as error:
        metadata = obj["metadata"]
        raise InvalidInput(
            f"cannot be read, so that nothing is swept: {error.errors()[0]['msg']}",
            field=f"{model.__name__} {metadata['namespace']}/{metadata['name']}",
        ) from error


def read_adapter(adapter: Adapter) -> list[Named]:
    """Return what the Adapter names now, and what it may go back to."""
    namespace, own = adapter.metadata.namespace, adapter.metadata.name
    artifact, imported = adapter.spec.source.artifact, adapter.status.imported
    name = (artifact.name if artifact else None) or own
    current = {
        artifact.digest if artifact else None,
        adapter.status.digest,
        imported.digest if imported else None,
    }
    digests = {name: {digest for digest in current if digest}}
    for revision in adapter.status.history or []:
        digests.setdefault(revision.name or own, set()).add(revision.digest)
    num_earlier = len(digests[name] - current)
    limit = max(0, adapter.spec.revision_history_limit - num_earlier)
    return [
        Named(namespace, under, frozenset(found), limit if under == name else None)
        for under, found in digests.items()
    ]


def describe(report: Report) -> str:
    """Return the report for a person."""
    lines = [
        f"{r.prefix}  {r.why}, {r.num_objects} objects, {r.size_bytes / 1e6:.1f} MB"
        for r in report.removals
    ]
    lines += [
        f"{u.key}  unfinished upload in parts, begun {u.begun_at:%F %T}" for u in report.uploads
    ]
    return "\n".join(lines) or "nothing to remove"


async def _main(settings: config.Config, *, is_dry: bool) -> None:
    api = await kubernetes.connect()
    store = Store(settings.store)
    try:
        keeping = Housekeeping(
            cluster=api,
            store=store,
            namespaces=settings.watch_namespaces,
            clock=lambda: datetime.now(UTC),
        )
        report = await keeping.sweep(is_dry=is_dry)
    finally:
        await api.close()
        store.close()
    print(describe(report))  # noqa: T201 (a command prints)
    if is_dry and (report.removals or report.uploads):
        print("Nothing was removed; --remove does it.")  # noqa: T201 (the same)


def main() -> int:
    parser = argparse.ArgumentParser(description="Sweep the artifact store.")
    parser.add_argument("--remove", action="store_true", help="remove what a dry run shows")
    arguments = parser.parse_args()
    try:
        settings = config.read()
        logs.configure(level="WARNING", as_json=settings.log_format == "json")
        asyncio.run(_main(settings, is_dry=not arguments.remove))
    except LoraLandError as error:
        print(f"loraland-operator: {error}", file=sys.stderr)  # noqa: T201 (logs may not be set up)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
