"""The garbage collector's loop: a graph of all objects' owners, kept by watches on metadata.

What to do with one object is decided in ``garbage``.
"""

import asyncio
import logging
from collections.abc import Iterator

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.informer import Informer
from loraland_local.apiclient.objects import Key, Object
from loraland_local.apiclient.resources import Resource
from loraland_local.apiclient.workqueue import Workqueue
from loraland_local.controllers import discovery, garbage
from loraland_local.controllers.garbage import Node, Reference

_log = logging.getLogger(__name__)
_DISCOVERY_INTERVAL_S = 20.0
_DISCOVERY_DELAY_S = 0.2


class Collector:
    """Deletes what has lost its owners, and lets go what waited for its dependents."""

    def __init__(self, cluster: Cluster, definitions: Informer) -> None:
        self._cluster = cluster
        self._nodes: dict[str, Node] = {}
        self._dependents: dict[str, set[str]] = {}
        self._informers: dict[Resource, tuple[Informer, asyncio.Task[None]]] = {}
        self._rediscover = asyncio.Event()
        self.queue = Workqueue("garbage-collector", self._reconcile)
        definitions.add_listener(lambda _: self._rediscover.set())

    @property
    def resources(self) -> list[Resource]:
        return list(self._informers)

    def in_namespace(self, namespace: str) -> Iterator[Node]:
        return (node for node in self._nodes.values() if node.namespace == namespace)

    async def run(self) -> None:
        """Follow all kinds, as they come and go, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.queue.run())
            while True:
                try:
                    await self._follow_kinds(group)
                except ApiError as error:
                    _log.warning("discovery: %s; trying again", error)
                self._rediscover.clear()
                try:
                    async with asyncio.timeout(_DISCOVERY_INTERVAL_S):
                        await self._rediscover.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(_DISCOVERY_DELAY_S)

    async def _follow_kinds(self, group: asyncio.TaskGroup) -> None:
        served = set(await discovery.discover(self._cluster))
        for resource in set(self._informers) - served:
            informer, task = self._informers.pop(resource)
            task.cancel()
            for obj in informer.all():
                informer.forget(obj)
        for resource in served - set(self._informers):
            informer = Informer(self._cluster, resource, metadata_only=True)
            informer.add_listener(
                lambda obj, informer=informer: self._notice(informer, obj)  # type: ignore[misc]
            )
            self._informers[resource] = (informer, group.create_task(informer.run()))

    def _notice(self, informer: Informer, obj: Object) -> None:
        uid = objects.uid(obj)
        known = informer.get(objects.key(obj))
        before = self._nodes.get(uid)
        if known is None or objects.uid(known) != uid:
            self._forget(uid)
            return
        node = garbage.build_node(informer.resource, obj)
        if node == before:
            return
        self._nodes[uid] = node
        for reference in before.owners if before else ():
            self._dependents.get(reference.uid, set()).discard(uid)
            self._look_at(reference.uid)
        for reference in node.owners:
            self._dependents.setdefault(reference.uid, set()).add(uid)
            self._look_at(reference.uid)
        self._look_at(uid)
        if node.is_deleting:
            for dependent in self._dependents.get(uid, set()):
                self._look_at(dependent)

    def _forget(self, uid: str) -> None:
        node = self._nodes.pop(uid, None)
        for reference in node.owners if node else ():
            self._dependents.get(reference.uid, set()).discard(uid)
            self._look_at(reference.uid)
        for dependent in self._dependents.pop(uid, set()):
            self._look_at(dependent)

    def _look_at(self, uid: str) -> None:
        self.queue.add(("", uid))

    async def _reconcile(self, key: Key) -> float | None:
        node = self._nodes.get(key[1])
        if node is None or not (node.owners or node.finalizers):
            return None
        owners = {}
        for reference in node.owners:
            is_known, owner = await self._find_owner(node, reference)
            if is_known:
                owners[reference.uid] = owner
        dependents = self._dependents_of(node.uid)
        for action in garbage.plan(node, owners, dependents, has_dependents=bool(dependents)):
            await self._do(action)
        return None

    def _dependents_of(self, uid: str) -> list[Node]:
        uids = self._dependents.get(uid, set())
        return [found for dependent in uids if (found := self._nodes.get(dependent))]

    async def _find_owner(self, node: Node, reference: Reference) -> tuple[bool, Node | None]:
        """Return whether the owner's fate is certain, and its node if it is there.

        The graph may lag behind; that an owner is gone is believed only after asking for it.
        """
        owner = self._nodes.get(reference.uid)
        if owner is not None and owner.namespace in {"", node.namespace}:
            return True, owner
        resource = next(
            (
                found
                for found in self._informers
                if (found.api_version.partition("/")[0], found.kind)
                == (reference.api_version.partition("/")[0], reference.kind)
            ),
            None,
        )
        if resource is None:
            return False, None
        namespace = node.namespace if resource.is_namespaced else ""
        found = await self._cluster.get_or_none(resource, namespace, reference.name)
        if found is None or objects.uid(found) != reference.uid:
            return True, None
        return True, garbage.build_node(resource, found)

    async def _do(self, action: garbage.Action) -> None:
        node = action.node
        if isinstance(action, garbage.Delete):
            _log.debug("deleting %s %s/%s", node.resource.plural, node.namespace, node.name)
            await self._cluster.delete(
                node.resource,
                node.namespace,
                node.name,
                uid=node.uid,
                propagation=action.propagation,
            )
            return
        try:
            found = await self._cluster.get(node.resource, node.namespace, node.name)
            if objects.uid(found) != node.uid:
                return
            meta: Object = {
                "uid": node.uid,
                "resourceVersion": found["metadata"]["resourceVersion"],
            }
            if isinstance(action, garbage.RemoveFinalizer):
                kept = [f for f in objects.finalizers(found) if f != action.finalizer]
                meta["finalizers"] = kept
            else:
                listed = objects.metadata(found).get("ownerReferences") or []
                meta["ownerReferences"] = [r for r in listed if r["uid"] not in action.uids]
            await self._cluster.patch(node.resource, node.namespace, node.name, {"metadata": meta})
        except ApiError as error:
            if not error.is_not_found:
                raise


def definitions_informer(cluster: Cluster) -> Informer:
    return Informer(cluster, resources.CUSTOM_RESOURCE_DEFINITIONS, metadata_only=True)
