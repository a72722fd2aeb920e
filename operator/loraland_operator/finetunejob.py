"""FineTuneJobs: look at the world around one, follow its plan, report."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from loraland_core import artifacts, names
from loraland_core.errors import ArtifactInvalid, InvalidInput, NotFound, Unavailable
from loraland_core.resources import Adapter, FineTuneJob
from loraland_core.store import Store

from loraland_operator import cluster as kubernetes
from loraland_operator import manifests, report
from loraland_operator.answers import FieldConflict, Forbidden
from loraland_operator.base_models import BaseModels
from loraland_operator.cluster import Cluster
from loraland_operator.mirror import Key, Mirror, Object
from loraland_operator.plan import finetunejob as planning
from loraland_operator.plan import pods
from loraland_operator.plan.finetunejob import Observed, ResultState, Settings
from loraland_operator.plan.steps import Apply, Plan, Refusal
from loraland_operator.progress import ProgressReader

log = logging.getLogger(__name__)

MAX_ROUNDS = 4


@dataclass
class FineTuneJobs:
    """Reconciles FineTuneJobs."""

    cluster: Cluster
    mirror: Mirror
    store: Store
    progress: ProgressReader
    base_models: BaseModels
    settings: Settings
    clock: Callable[[], datetime]
    # When a job's pod was asked last, so that events do not make us ask more often.
    _asked_at: dict[Key, datetime] = field(default_factory=dict)

    async def reconcile(self, key: Key) -> float | None:
        """Bring the world nearer to what the job asks for; return when to look again."""
        settled = await self._settle(key)
        if settled is None:
            self._asked_at.pop(key, None)
            return None
        obj, plan, now = settled
        if plan.status is not None:
            await report.write(
                self.cluster,
                self.mirror,
                kubernetes.FINE_TUNE_JOBS,
                obj,
                status=plan.status,
                notes=plan.notes,
                now=now,
            )
        else:
            self._asked_at.pop(key, None)
        if plan.delete_self:
            log.info("%s has outlived its time and is deleted", key)
            await self.cluster.delete(kubernetes.FINE_TUNE_JOBS, obj)
        return plan.requeue_after_s

    async def _settle(self, key: Key) -> tuple[Object, Plan, datetime] | None:
        """Look, decide and apply until nothing is left to apply; None if the job is gone."""
        refusal: Refusal | None = None
        for _ in range(MAX_ROUNDS):
            obj = self.mirror.find(*key)
            if obj is None:
                return None
            job = FineTuneJob.model_validate(obj)
            now = self.clock()
            plan = planning.plan(job, await self._observe(job, refusal), now)
            if not plan.apply:
                return obj, plan, now
            refusal = await self._apply(plan.apply)
        raise Unavailable(f"{key} does not settle", retry_after_s=10.0)

    async def _apply(self, applies: tuple[Apply, ...]) -> Refusal | None:
        for apply in applies:
            kind = apply.manifest["kind"]
            try:
                written = await self.cluster.apply(
                    apply.manifest, manager=apply.manager, force=apply.force
                )
            except FieldConflict as error:
                return Refusal(kind, "conflict", str(error))
            except InvalidInput as error:
                return Refusal(kind, "invalid", str(error))
            except Forbidden as error:
                return Refusal(kind, "forbidden", str(error))
            if kind != names.ADAPTER:
                # An Adapter's own reconciliation shall see its event as news.
                self.mirror.put(written)
        return None

    async def _observe(self, job: FineTuneJob, refusal: Refusal | None) -> Observed:
        base = Observed(
            settings=self.settings,
            entry=self.base_models.find(job.spec.base_model),
            known_base_models=self.base_models.names,
            refusal=refusal,
        )
        if planning.has_ended(job.status) or job.metadata.deletion_timestamp:
            return base
        child = await self._find_child(job)
        if child is not None and pods.job_end(child) is None:
            return await self._observe_run(job, child, base)
        if child is None and job.status.job_ref is None:
            return replace(base, missing_secrets=await self._find_missing_secrets(job))
        return await self._observe_end(job, child, base)

    async def _find_child(self, job: FineTuneJob) -> Object | None:
        """Return the batch/v1 Job; only the API server is believed that there is none."""
        namespace, name = job.metadata.namespace, job.metadata.name
        seen = self.mirror.find(kubernetes.JOBS.kind, namespace, name)
        return seen or await self.cluster.find(kubernetes.JOBS, namespace, name)

    async def _observe_run(self, job: FineTuneJob, child: Object, base: Observed) -> Observed:
        job_pods = self.mirror.pods_of(job.metadata.uid)
        running = pods.find_running(job_pods)
        progress = None
        if running is not None and pods.pod_ip(running) and self._is_progress_due(job):
            progress = await self.progress.read(pods.pod_ip(running))
        return replace(base, job=child, pods=tuple(job_pods), progress=progress)

    def _is_progress_due(self, job: FineTuneJob) -> bool:
        key = Key(names.FINE_TUNE_JOB, job.metadata.namespace, job.metadata.name)
        now = self.clock()
        asked_at = self._asked_at.get(key)
        if asked_at and now - asked_at < timedelta(seconds=planning.PROGRESS_EVERY_S):
            return False
        self._asked_at[key] = now
        return True

    async def _observe_end(
        self, job: FineTuneJob, child: Object | None, base: Observed
    ) -> Observed:
        """Ask the store for the result; if there is none, the pods for the reason."""
        state, result, problem = await self._read_result(job)
        observed = replace(
            base, job=child, result_state=state, result=result, store_problem=problem
        )
        if result is not None:
            prefix = artifacts.adapter_prefix(
                job.metadata.namespace, manifests.adapter_name(job), result.digest
            )
            adapter = await self.cluster.find(
                kubernetes.ADAPTERS, job.metadata.namespace, manifests.adapter_name(job)
            )
            return replace(
                observed,
                expected_uri=self.store.uri(prefix),
                adapter=None if adapter is None else Adapter.model_validate(adapter),
            )
        if child is None or state is not ResultState.MISSING or pods.job_end(child) != "Failed":
            return observed
        job_pods = await self.cluster.list(
            kubernetes.PODS,
            job.metadata.namespace,
            labels=f"{names.LABEL_JOB_UID}={job.metadata.uid}",
        )
        last = pods.find_last_termination(job_pods)
        log_tail = ""
        if last is not None and not last.message:
            log_tail = await self.cluster.read_log(
                job.metadata.namespace, last.pod, pods.TRAINER_CONTAINER
            )
        return replace(observed, pods=tuple(job_pods), log_tail=log_tail)

    async def _read_result(
        self, job: FineTuneJob
    ) -> tuple[ResultState, artifacts.Result | None, str]:
        try:
            data = await asyncio.to_thread(self.store.read, artifacts.result_key(job.metadata.uid))
            return ResultState.FOUND, artifacts.parse_result(data), ""
        except NotFound:
            return ResultState.MISSING, None, ""
        except ArtifactInvalid as error:
            return ResultState.MISSING, None, str(error)
        except (InvalidInput, Unavailable) as error:
            return ResultState.UNKNOWN, None, str(error)

    async def _find_missing_secrets(self, job: FineTuneJob) -> dict[str, str]:
        missing = {}
        for field_, ref in manifests.secrets_of(job).items():
            namespace = job.metadata.namespace
            if not await self.cluster.exists(kubernetes.SECRETS, namespace, ref.name):
                missing[field_] = ref.name
        return missing
