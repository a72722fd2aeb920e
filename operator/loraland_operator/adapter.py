"""Adapters: look at the world around one, follow its plan, report."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from loraland_core import artifacts, names
from loraland_core.errors import ArtifactInvalid, InvalidInput, NotFound, Unavailable
from loraland_core.resources import Adapter
from loraland_core.store import Store
from pydantic import ValidationError

from loraland_operator import cluster as kubernetes
from loraland_operator import manifests, metrics, report
from loraland_operator.answers import Forbidden
from loraland_operator.base_models import BaseModels
from loraland_operator.cluster import Cluster
from loraland_operator.fleets import Fleets
from loraland_operator.importer import Importer
from loraland_operator.mirror import Key, Mirror, Object
from loraland_operator.plan import adapter as planning
from loraland_operator.plan import deletion, history
from loraland_operator.plan.adapter import Observed, Verification
from loraland_operator.plan.fleet import adapter_id
from loraland_operator.plan.importing import artifact_of
from loraland_operator.plan.steps import AdapterPlan, Apply
from loraland_operator.registry import Registry

log = logging.getLogger(__name__)

MAX_ROUNDS = 6


@dataclass
class Adapters:
    """Reconciles Adapters."""

    cluster: Cluster
    mirror: Mirror
    store: Store
    registry: Registry
    fleets: Fleets
    base_models: BaseModels
    importer: Importer
    clock: Callable[[], datetime]
    # When an Adapter's instances were written last; after a restart they are written anew.
    _instances_at: dict[Key, datetime] = field(default_factory=dict)

    async def reconcile(self, key: Key) -> float | None:
        """Bring the world nearer to what the Adapter asks for; return when to look again."""
        settled = await self._settle(key)
        if settled is None:
            self._instances_at.pop(key, None)
            return None
        obj, plan, now = settled
        if plan.status is not None:
            await report.write(
                self.cluster,
                self.mirror,
                kubernetes.ADAPTERS,
                obj,
                status=plan.status,
                notes=plan.notes,
                now=now,
            )
            if plan.status.get("instances") != (obj.get("status") or {}).get("instances"):
                self._instances_at[key] = now
            waited = history.waited_s(obj, plan.status, now)
            if waited is not None:
                kind, seconds = waited
                metrics.READY_SECONDS.labels(kind).observe(seconds)
        return plan.requeue_after_s

    async def _settle(self, key: Key) -> tuple[Object, AdapterPlan, datetime] | None:
        """Look, decide and act until nothing is left to do; None if the Adapter is gone."""
        verification: Verification | None = None
        store_problem = refusal = ""
        for _ in range(MAX_ROUNDS):
            obj = self.mirror.find(*key)
            if obj is None:
                return None
            adapter = Adapter.model_validate(obj)
            if verification is None and planning.needs_verification(adapter):
                verification = await self._verify(adapter)
            entry = self.base_models.find(adapter.spec.base_model)
            observed = replace(
                await self._observe(adapter),
                verification=verification,
                import_=await self.importer.observe(adapter, entry, refusal),
                store_problem=store_problem,
            )
            now = self.clock()
            plan = planning.plan(adapter, observed, now)
            if not plan.changes_the_world:
                return obj, plan, now
            if plan.apply:
                refusal = await self._apply(plan.apply)
            else:
                store_problem = await self._act(adapter, obj, plan)
        raise Unavailable(f"{key} does not settle", retry_after_s=10.0)

    async def _apply(self, applies: tuple[Apply, ...]) -> str:
        """Apply what an import is made of; return what the API server objected."""
        for apply in applies:
            try:
                written = await self.cluster.apply(
                    apply.manifest, manager=apply.manager, force=apply.force
                )
            except (InvalidInput, Forbidden) as error:
                return str(error)
            self.mirror.put(written)
        return ""

    async def _act(self, adapter: Adapter, obj: Object, plan: AdapterPlan) -> str:
        """Do what the plan says, in its order; return what the artifact store objected."""
        id_ = adapter_id(adapter.metadata.namespace, adapter.metadata.name)
        if plan.add_finalizer:
            await self._set_finalizers(obj, [*adapter.metadata.finalizers, names.FINALIZER])
        if plan.publish is not None:
            await self.registry.put(id_, plan.publish)
        if plan.withdraw:
            await self.registry.remove(adapter.spec.base_model, id_)
        for prefix in plan.delete_prefixes:
            self.cluster.before_write()
            try:
                num_deleted = await asyncio.to_thread(self.store.delete_prefix, prefix)
            except (InvalidInput, Unavailable) as error:
                return str(error)
            log.info("%d objects deleted below %s", num_deleted, prefix)
        if plan.remove_finalizer:
            others = [f for f in adapter.metadata.finalizers if f != names.FINALIZER]
            await self._set_finalizers(obj, others)
        return ""

    async def _set_finalizers(self, obj: Object, finalizers: list[str]) -> None:
        change = {"metadata": {"finalizers": finalizers}}
        try:
            written = await self.cluster.patch(kubernetes.ADAPTERS, obj, change)
        except NotFound:
            self.mirror.remove(obj)
            return
        self.mirror.put(written)

    async def _observe(self, adapter: Adapter) -> Observed:
        base_model = adapter.spec.base_model
        observed = Observed(
            entry=self.base_models.find(base_model),
            known_base_models=self.base_models.names,
            uri=self._uri(adapter),
            instances_written_at=self._instances_at.get(
                Key(names.ADAPTER, adapter.metadata.namespace, adapter.metadata.name)
            ),
        )
        if adapter.metadata.deletion_timestamp:
            observed = replace(observed, unshared_prefixes=await self._find_unshared(adapter))
        if observed.entry is None:
            # Without an entry of the catalogue there is no registry to be in.
            return observed
        problem = self.fleets.problem(base_model)
        if problem:
            return replace(observed, registry_problem=problem)
        id_ = adapter_id(adapter.metadata.namespace, adapter.metadata.name)
        return replace(
            observed,
            record=self.registry.find_record(base_model, id_),
            fleet=self.fleets.current(base_model),
        )

    def _uri(self, adapter: Adapter) -> str:
        artifact = artifact_of(adapter)
        if artifact is None:
            return ""
        return self.store.uri(manifests.artifact_prefix(adapter, artifact.digest))

    async def _verify(self, adapter: Adapter) -> Verification:
        """Read the manifest and see that the files it names are there, whole."""
        artifact = artifact_of(adapter)
        assert artifact is not None
        prefix = manifests.artifact_prefix(adapter, artifact.digest)
        try:
            return await asyncio.to_thread(verify, self.store, prefix, artifact.digest)
        except Unavailable as error:
            return Verification(problem=str(error))
        except InvalidInput as error:
            return Verification(refusal=(error.reason, str(error)))

    async def _find_unshared(self, adapter: Adapter) -> tuple[str, ...]:
        """Return the prefixes that go with this Adapter and that no other one refers to."""
        prefixes = deletion.prefixes_of(adapter)
        if not prefixes:
            return ()
        named: set[str] = set()
        for obj in await self.cluster.list(kubernetes.ADAPTERS, adapter.metadata.namespace):
            if obj["metadata"]["uid"] == adapter.metadata.uid:
                continue
            try:
                other = Adapter.model_validate(obj)
            except ValidationError:
                # Written by another release: whatever it may name stays, and nothing else waits.
                named |= {prefix for prefix in prefixes if deletion.mentions(obj, prefix)}
                continue
            goes_too = other.metadata.deletion_timestamp and other.spec.deletion_policy == "Delete"
            if not goes_too:
                named |= deletion.named_prefixes(other)
        return tuple(prefix for prefix in prefixes if prefix not in named)


def verify(store: Store, prefix: str, digest: str) -> Verification:
    """Hold the objects below ``prefix`` against their manifest; raise what the store raises.

    Sizes are compared, hashes are not: the replica that loads the files computes them anyway.
    """
    try:
        data = store.read(prefix + artifacts.MANIFEST_FILE, max_bytes=artifacts.MAX_MANIFEST_BYTES)
    except NotFound:
        message = (
            f"there is no {store.uri(prefix)}{artifacts.MANIFEST_FILE}; an upload is complete only"
            " with its manifest"
        )
        return Verification(refusal=(names.Reason.MANIFEST_MISSING, message))
    manifest = artifacts.parse_manifest(data, expected_digest=digest)
    sizes = {o.key[len(prefix) :]: o.size_bytes for o in store.find_objects(prefix)}
    for file in manifest.served_files:
        size_bytes = sizes.get(file.path)
        if size_bytes is None:
            raise ArtifactInvalid("is missing in the store", field=file.path)
        if size_bytes != file.size_bytes:
            raise ArtifactInvalid(
                f"has {size_bytes} bytes, its manifest says {file.size_bytes}",
                field=file.path,
                reason=names.Reason.DIGEST_MISMATCH,
            )
    return Verification(manifest=manifest)
