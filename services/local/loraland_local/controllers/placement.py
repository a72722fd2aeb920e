"""The scheduler's loop: binds pending pods to the node that ``scheduler`` chooses."""

import datetime as dt

from loraland_local.apiclient import objects, pod_state, resources
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.informer import Informer
from loraland_local.apiclient.objects import Event, Key, Object
from loraland_local.apiclient.recorder import Recorder
from loraland_local.apiclient.workqueue import Workqueue
from loraland_local.controllers import scheduler

_RETRY_INTERVAL_S = 30.0


class PlacementController:
    """Binds pods to nodes."""

    def __init__(self, cluster: Cluster, pods: Informer, nodes: Informer) -> None:
        self._cluster = cluster
        self._pods = pods
        self._nodes = nodes
        self._recorder = Recorder(cluster, "default-scheduler")
        # One at a time: a binding takes resources that the next decision must not give again.
        self.queue = Workqueue("scheduler", self._reconcile, num_workers=1)
        pods.add_listener(self._notice_pod)
        nodes.add_listener(self._notice_node)

    def _notice_pod(self, pod: Object) -> None:
        if not (pod.get("spec") or {}).get("nodeName"):
            self.queue.add(objects.key(pod))
        elif pod_state.is_terminal(pod) or self._pods.get(objects.key(pod)) is None:
            self._retry_waiting()

    def _notice_node(self, node: Object) -> None:
        del node
        self._retry_waiting()

    def _retry_waiting(self) -> None:
        for pod in self._pods.all():
            if scheduler.is_waiting(pod):
                self.queue.add(objects.key(pod))

    async def _reconcile(self, key: Key) -> float | None:
        pod = self._pods.get(key)
        if pod is None:
            return None
        if objects.is_deleting(pod) and not (pod.get("spec") or {}).get("nodeName"):
            # No kubelet will ever confirm the end of a pod that never ran.
            if not objects.finalizers(pod) or self._has_grace(pod):
                await self._cluster.delete(
                    resources.PODS, *key, uid=objects.uid(pod), grace_period_s=0
                )
            return None
        if not scheduler.is_waiting(pod):
            return None
        if pod["spec"].get("schedulingGates"):
            message = "Scheduling is blocked due to non-empty scheduling gates"
            await self._set_unscheduled(pod, "SchedulingGated", message)
            return None
        placement = scheduler.plan(pod, self._nodes.all(), self._pods.all())
        if placement.node_name:
            await self._bind(pod, placement.node_name)
            return None
        if await self._set_unscheduled(pod, "Unschedulable", placement.message):
            await self._tell(pod, Event("Warning", "FailedScheduling", placement.message))
        return _RETRY_INTERVAL_S

    def _has_grace(self, pod: Object) -> bool:
        return int(objects.metadata(pod).get("deletionGracePeriodSeconds") or 0) > 0

    async def _bind(self, pod: Object, node_name: str) -> None:
        namespace, name = objects.key(pod)
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": objects.uid(pod)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node_name},
        }
        try:
            await self._cluster.call(
                "POST", resources.PODS.path(namespace, name, "binding"), body=body
            )
        except ApiError as error:
            if not (error.is_not_found or error.status == 409):
                raise
            return
        found = await self._cluster.get_or_none(resources.PODS, namespace, name)
        if found is not None:
            self._pods.remember(found)
        message = f"Successfully assigned {namespace}/{name} to {node_name}"
        await self._tell(pod, Event("Normal", "Scheduled", message))

    async def _set_unscheduled(self, pod: Object, reason: str, message: str) -> bool:
        """Write the PodScheduled condition; return whether it says something new."""
        found = objects.condition(pod, "PodScheduled") or {}
        if (found.get("status"), found.get("reason"), found.get("message")) == (
            "False",
            reason,
            message,
        ):
            return False
        status = pod.get("status") or {}
        conditions = objects.with_condition(
            status.get("conditions") or [],
            "PodScheduled",
            "False",
            now=dt.datetime.now(tz=dt.UTC),
            reason=reason,
            message=message,
        )
        body = {**pod, "status": {**status, "conditions": conditions}}
        self._pods.remember(await self._cluster.replace(resources.PODS, body, "status"))
        return True

    async def _tell(self, pod: Object, event: Event) -> None:
        await self._recorder.record(pod, api_version="v1", kind="Pod", event=event)
