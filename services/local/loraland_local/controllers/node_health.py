"""Which nodes have fallen silent: a pure judgement, and the loop that writes it down."""

import asyncio
import datetime as dt
import logging

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.informer import Informer
from loraland_local.apiclient.objects import Object

_log = logging.getLogger(__name__)
LEASE_NAMESPACE = "kube-node-lease"
GRACE_S = 40.0
_INTERVAL_S = 5.0
_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


def judge(node: Object, lease: Object | None, now: dt.datetime) -> list[Object] | None:
    """Return the node's new conditions when its kubelet has not been heard of for too long."""
    ready = objects.condition(node, "Ready")
    if ready is None or ready["status"] == "Unknown":
        return None
    heard = objects.parse_time(ready.get("lastHeartbeatTime"))
    renewed = objects.parse_time(((lease or {}).get("spec") or {}).get("renewTime"))
    known = [moment for moment in (heard, renewed) if moment is not None]
    if not known or (now - max(known)).total_seconds() <= GRACE_S:
        return None
    conditions = list((node.get("status") or {}).get("conditions") or [])
    for kind in _CONDITIONS:
        conditions = objects.with_condition(
            conditions,
            kind,
            "Unknown",
            now=now,
            reason="NodeStatusUnknown",
            message="Kubelet stopped posting node status.",
        )
    return conditions


async def watch_over(cluster: Cluster, nodes: Informer) -> None:
    """Mark silent nodes until cancelled."""
    while True:
        await asyncio.sleep(_INTERVAL_S)
        for node in nodes.all():
            try:
                await _judge_one(cluster, node)
            except ApiError as error:
                _log.debug("node %s: %s", objects.name(node), error)


async def _judge_one(cluster: Cluster, node: Object) -> None:
    lease = await cluster.get_or_none(resources.LEASES, LEASE_NAMESPACE, objects.name(node))
    conditions = judge(node, lease, dt.datetime.now(tz=dt.UTC))
    if conditions is not None:
        _log.warning("node %s has fallen silent", objects.name(node))
        body = {**node, "status": {**node["status"], "conditions": conditions}}
        await cluster.replace(resources.NODES, body, "status")
