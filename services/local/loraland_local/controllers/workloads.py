"""The loops of the Job, ReplicaSet and Deployment controllers: observe, plan, do. No decisions."""

import asyncio
import copy
import datetime as dt
from collections.abc import Iterable

from loraland_local.apiclient import objects, pod_state, resources
from loraland_local.apiclient.cluster import JSON_PATCH, Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.informer import Informer
from loraland_local.apiclient.objects import Event, Key, Object
from loraland_local.apiclient.recorder import Recorder
from loraland_local.apiclient.workqueue import Workqueue
from loraland_local.controllers import deployment, job, job_pods, replicaset, ttl

_JOB_CONTROLLER = "kubernetes.io/job-controller"


def now_utc() -> dt.datetime:
    return dt.datetime.now(tz=dt.UTC)


class Workload:
    """What the three loops share: who owns whom, and how to write."""

    def __init__(
        self, cluster: Cluster, owners: Informer, dependents: Informer, component: str
    ) -> None:
        self._cluster = cluster
        self._owners = owners
        self._dependents = dependents
        self._recorder = Recorder(cluster, component)
        self.queue = Workqueue(component, self._reconcile)
        owners.add_listener(lambda obj: self.queue.add(objects.key(obj)))
        dependents.add_listener(self._notice)

    async def _reconcile(self, key: Key) -> float | None:
        raise AssertionError("each controller has its own")

    def _notice(self, dependent: Object) -> None:
        owner = objects.controller_of(dependent)
        if owner is not None and owner["kind"] == self._owners.resource.kind:
            self.queue.add((objects.namespace(dependent), owner["name"]))

    async def _owned(self, owner: Object) -> list[Object]:
        """Return what the owner controls, after adopting what its selector matches."""
        found = []
        for dependent in self._dependents.in_namespace(objects.namespace(owner)):
            controller = objects.controller_of(dependent)
            if controller is not None:
                if controller["uid"] != objects.uid(owner):
                    continue
                if self._must_release(owner, dependent):
                    await self._release_control(owner, dependent)
                else:
                    found.append(dependent)
            elif self._may_adopt(owner, dependent):
                found.append(await self._adopt(owner, dependent))
        return found

    def _may_adopt(self, owner: Object, dependent: Object) -> bool:
        return (
            not objects.is_deleting(owner)
            and not objects.is_deleting(dependent)
            and not pod_state.is_terminal(dependent)
            and objects.matches_selector(owner["spec"].get("selector"), objects.labels(dependent))
        )

    def _must_release(self, owner: Object, dependent: Object) -> bool:
        """Say whether somebody took the dependent away by changing its labels."""
        selector = owner["spec"].get("selector")
        return not objects.is_deleting(dependent) and not objects.matches_selector(
            selector, objects.labels(dependent)
        )

    async def _release_control(self, owner: Object, dependent: Object) -> None:
        listed = objects.metadata(dependent)["ownerReferences"]
        meta = {
            "uid": objects.uid(dependent),
            "resourceVersion": objects.metadata(dependent)["resourceVersion"],
            "ownerReferences": [ref for ref in listed if ref["uid"] != objects.uid(owner)],
        }
        self._dependents.remember(
            await self._cluster.patch(
                self._dependents.resource, *objects.key(dependent), {"metadata": meta}
            )
        )

    async def _adopt(self, owner: Object, dependent: Object) -> Object:
        resource = self._owners.resource
        reference = objects.controller_reference(
            owner, api_version=resource.api_version, kind=resource.kind
        )
        others = objects.metadata(dependent).get("ownerReferences") or []
        meta = {
            "uid": objects.uid(dependent),
            "resourceVersion": objects.metadata(dependent)["resourceVersion"],
            "ownerReferences": [*others, reference],
        }
        adopted = await self._cluster.patch(
            self._dependents.resource, *objects.key(dependent), {"metadata": meta}
        )
        self._dependents.remember(adopted)
        return adopted

    async def _create(self, owner: Object, bodies: Iterable[Object], noun: str) -> None:
        async def create(body: Object) -> None:
            try:
                created = await self._cluster.create(
                    self._dependents.resource, objects.namespace(owner), body
                )
            except ApiError as error:
                if error.is_already_there:
                    return
                message = f"Error creating: {error}"
                await self._tell(owner, [Event("Warning", "FailedCreate", message)])
                raise
            self._dependents.remember(created)
            message = f"Created {noun}: {objects.name(created)}"
            await self._tell(owner, [Event("Normal", "SuccessfulCreate", message)])

        await asyncio.gather(*(create(body) for body in bodies))

    async def _delete(self, owner: Object, dependents: Iterable[Object], noun: str) -> None:
        async def delete(dependent: Object) -> None:
            resource = self._dependents.resource
            await self._cluster.delete(
                resource, *objects.key(dependent), uid=objects.uid(dependent)
            )
            # The next decision must not delete another one in its place.
            found = await self._cluster.get_or_none(resource, *objects.key(dependent))
            if found is None or objects.uid(found) != objects.uid(dependent):
                self._dependents.forget(dependent)
            else:
                self._dependents.remember(found)
            message = f"Deleted {noun}: {objects.name(dependent)}"
            await self._tell(owner, [Event("Normal", "SuccessfulDelete", message)])

        await asyncio.gather(*(delete(dependent) for dependent in dependents))

    async def _write_status(self, owner: Object, status: Object | None) -> None:
        if status is not None:
            body = {**owner, "status": status}
            self._owners.remember(
                await self._cluster.replace(self._owners.resource, body, "status")
            )

    async def _tell(self, owner: Object, events: Iterable[Event]) -> None:
        resource = self._owners.resource
        for event in events:
            await self._recorder.record(
                owner, api_version=resource.api_version, kind=resource.kind, event=event
            )

    def _taken_names(self, namespace: str) -> set[str]:
        return {objects.name(found) for found in self._dependents.in_namespace(namespace)}


class JobController(Workload):
    """Runs Jobs."""

    def __init__(
        self, cluster: Cluster, jobs: Informer, pods: Informer, *, first_backoff_s: float
    ) -> None:
        self._first_backoff_s = first_backoff_s
        super().__init__(cluster, jobs, pods, "job-controller")

    def _notice(self, dependent: Object) -> None:
        super()._notice(dependent)
        job_name = objects.labels(dependent).get(job_pods.NAME_LABEL)
        if job_name and objects.controller_of(dependent) is None:
            self.queue.add((objects.namespace(dependent), job_name))

    async def _reconcile(self, key: Key) -> float | None:
        found = self._owners.get(key)
        await self._release_orphans(key, objects.uid(found) if found else "")
        if found is None or found["spec"].get("managedBy", _JOB_CONTROLLER) != _JOB_CONTROLLER:
            return None
        now = now_utc()
        ttl_left_s = ttl.job_left_s(found, now)
        if ttl_left_s is not None and ttl_left_s <= 0:
            await self._cluster.delete(
                resources.JOBS, *key, uid=objects.uid(found), propagation="Background"
            )
            return None
        plan = job.plan(
            found,
            await self._owned(found),
            self._taken_names(key[0]),
            now,
            first_backoff_s=self._first_backoff_s,
        )
        await self._write_status(found, plan.status)
        await asyncio.gather(*(self._release(pod) for pod in plan.release))
        await self._delete(found, plan.delete, "pod")
        await self._create(found, plan.create, "pod")
        await self._tell(found, plan.events)
        waits_s = [wait for wait in (plan.requeue_after_s, ttl_left_s) if wait is not None]
        return min(waits_s, default=None)

    async def _release_orphans(self, key: Key, job_uid: str) -> None:
        """Take the tracking finalizer off pods whose job is gone, or has let go of them."""
        for pod in self._dependents.in_namespace(key[0]):
            owner = objects.controller_of(pod)
            if not job_pods.is_tracked(pod):
                continue
            if owner is None:
                is_orphan = not job_uid and objects.labels(pod).get(job_pods.NAME_LABEL) == key[1]
            else:
                is_orphan = owner["name"] == key[1] and owner["uid"] != job_uid
            if is_orphan:
                await self._release(pod)

    async def _release(self, pod: Object) -> None:
        position = objects.finalizers(pod).index(job_pods.TRACKING_FINALIZER)
        path = f"/metadata/finalizers/{position}"
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": objects.uid(pod)},
            {"op": "test", "path": path, "value": job_pods.TRACKING_FINALIZER},
            {"op": "remove", "path": path},
        ]
        try:
            released = await self._cluster.patch(
                resources.PODS, *objects.key(pod), patch, patch_type=JSON_PATCH
            )
        except ApiError as error:
            if not error.is_not_found:
                raise
        else:
            self._dependents.remember(released)


class ReplicaSetController(Workload):
    """Keeps the pods of ReplicaSets."""

    def __init__(self, cluster: Cluster, replica_sets: Informer, pods: Informer) -> None:
        super().__init__(cluster, replica_sets, pods, "replicaset-controller")

    async def _reconcile(self, key: Key) -> float | None:
        found = self._owners.get(key)
        if found is None:
            return None
        plan = replicaset.plan(
            found, await self._owned(found), self._taken_names(key[0]), now_utc()
        )
        await self._delete(found, plan.delete, "pod")
        await self._create(found, plan.create, "pod")
        await self._write_status(found, plan.status)
        return plan.requeue_after_s


class DeploymentController(Workload):
    """Rolls Deployments out."""

    def __init__(self, cluster: Cluster, deployments: Informer, replica_sets: Informer) -> None:
        super().__init__(cluster, deployments, replica_sets, "deployment-controller")

    async def _reconcile(self, key: Key) -> float | None:
        found = self._owners.get(key)
        if found is None:
            return None
        plan = deployment.plan(found, await self._owned(found), now_utc())
        for body in plan.create:
            await self._ensure(body)
        for body in plan.replace:
            self._dependents.remember(await self._cluster.replace(resources.REPLICA_SETS, body))
        await self._delete(found, plan.delete, "replica set")
        current = copy.deepcopy(found)
        if plan.revision is not None:
            annotated = {"metadata": {"annotations": {deployment.REVISION: plan.revision}}}
            current = await self._cluster.patch(resources.DEPLOYMENTS, *key, annotated)
            self._owners.remember(current)
        await self._write_status(current, plan.status)
        await self._tell(found, plan.events)
        return plan.requeue_after_s

    async def _ensure(self, body: Object) -> None:
        try:
            created = await self._cluster.create(
                resources.REPLICA_SETS, objects.namespace(body), body
            )
        except ApiError as error:
            if not error.is_already_there:
                raise
            created = await self._cluster.get(resources.REPLICA_SETS, *objects.key(body))
        self._dependents.remember(created)
