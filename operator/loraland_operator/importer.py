"""Looks at what is there of an Adapter's import: its Job, its pods, its result."""

import asyncio
from dataclasses import dataclass

from loraland_core import artifacts, imports, names
from loraland_core.catalogue import BaseModelEntry
from loraland_core.errors import InvalidInput, NotFound, Unavailable
from loraland_core.imports import ImportResult
from loraland_core.resources import Adapter
from loraland_core.store import Store

from loraland_operator import cluster as kubernetes
from loraland_operator import importer_pod, manifests
from loraland_operator.cluster import Cluster
from loraland_operator.mirror import Mirror
from loraland_operator.plan.finetunejob import Settings
from loraland_operator.plan.importing import Import, artifact_of
from loraland_operator.plan.pods import Object, job_end
from loraland_operator.plan.steps import Apply

_LABEL_OF_POD = "batch.kubernetes.io/job-name"


@dataclass(frozen=True)
class Importer:
    """Observes imports; the plan decides and the Adapters' reconciler applies."""

    cluster: Cluster
    mirror: Mirror
    store: Store
    settings: Settings

    async def observe(
        self, adapter: Adapter, entry: BaseModelEntry | None, refusal: str
    ) -> Import | None:
        """Return what is there; None where nothing is to be imported, or no longer."""
        if entry is None or adapter.metadata.deletion_timestamp or artifact_of(adapter):
            return None
        result, problem = await self._read_result(adapter)
        if result is not None or problem or refusal:
            return Import(result=result, store_problem=problem, refusal=refusal)
        job = await self._find_job(adapter)
        if job is None:
            return Import(applies=self._build(adapter, entry))
        seen = self.mirror.pods_of(adapter.metadata.uid)
        if job_end(job) == "Failed":
            labels = f"{names.LABEL_JOB_UID}={adapter.metadata.uid}"
            namespace = adapter.metadata.namespace
            seen = [*await self.cluster.list(kubernetes.PODS, namespace, labels=labels)]
        name = job["metadata"]["name"]
        mine = [p for p in seen if p["metadata"].get("labels", {}).get(_LABEL_OF_POD) == name]
        return Import(job=job, pods=mine)

    def _build(self, adapter: Adapter, entry: BaseModelEntry) -> tuple[Apply, ...]:
        built = importer_pod.build(
            adapter,
            entry,
            image=self.settings.image,
            log_format=self.settings.log_format,
            store=self.settings.store,
        )
        return tuple(Apply(manifest) for manifest in built)

    async def _find_job(self, adapter: Adapter) -> Object | None:
        """Return the Job; only the API server is believed that there is none."""
        namespace, name = adapter.metadata.namespace, importer_pod.name(adapter)
        seen = self.mirror.find(kubernetes.JOBS.kind, namespace, name)
        return seen or await self.cluster.find(kubernetes.JOBS, namespace, name)

    async def _read_result(self, adapter: Adapter) -> tuple[ImportResult | None, str]:
        key = imports.result_key(adapter.metadata.uid, imports.source_hash(adapter.spec.source))
        try:
            result = imports.parse_result(await asyncio.to_thread(self.store.read, key))
            manifest = manifests.artifact_prefix(adapter, result.digest) + artifacts.MANIFEST_FILE
            # An artifact that was swept since has to be imported again.
            is_there = await asyncio.to_thread(self.store.exists, manifest)
            return result if is_there else None, ""
        except NotFound:
            return None, ""
        except (InvalidInput, Unavailable) as error:
            return None, str(error)
