"""The loop for namespaces: what each gets when it is new, and how it is emptied at its end."""

import asyncio

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.informer import Informer
from loraland_local.apiclient.objects import Key, Object
from loraland_local.apiclient.resources import Resource
from loraland_local.apiclient.workqueue import Workqueue
from loraland_local.controllers.collector import Collector

_FINALIZER = "kubernetes"
_ROOT_CA = "kube-root-ca.crt"
_EMPTYING_INTERVAL_S = 0.3


class NamespaceController:
    """Gives namespaces their ServiceAccount and root certificate, and empties deleted ones."""

    def __init__(
        self,
        cluster: Cluster,
        namespaces: Informer,
        service_accounts: Informer,
        config_maps: Informer,
        collector: Collector,
    ) -> None:
        self._cluster = cluster
        self._namespaces = namespaces
        self._service_accounts = service_accounts
        self._config_maps = config_maps
        self._collector = collector
        self.queue = Workqueue("namespace-controller", self._reconcile)
        namespaces.add_listener(lambda obj: self.queue.add(("", objects.name(obj))))
        for informer in (service_accounts, config_maps):
            informer.add_listener(self._notice)

    def _notice(self, obj: Object) -> None:
        if objects.name(obj) in {"default", _ROOT_CA}:
            self.queue.add(("", objects.namespace(obj)))

    async def _reconcile(self, key: Key) -> float | None:
        namespace = self._namespaces.get(key)
        if namespace is None:
            return None
        if objects.is_deleting(namespace):
            return await self._empty(namespace)
        await self._ensure(self._service_accounts, key[1], "default", {})
        certificate = self._cluster.certificate_authority
        await self._ensure(self._config_maps, key[1], _ROOT_CA, {"data": {"ca.crt": certificate}})
        return None

    async def _ensure(self, informer: Informer, namespace: str, name: str, fields: Object) -> None:
        if informer.get((namespace, name)) is not None:
            return
        resource = informer.resource
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, "namespace": namespace},
            **fields,
        }
        try:
            informer.remember(await self._cluster.create(resource, namespace, body))
        except ApiError as error:
            is_ending = error.status == 403 and "being terminated" in str(error)
            if not (error.is_already_there or error.is_not_found or is_ending):
                raise

    async def _empty(self, namespace: Object) -> float | None:
        """Delete the content; when a last look finds nothing, let the namespace go."""
        if _FINALIZER not in (namespace.get("spec") or {}).get("finalizers", []):
            return None
        name = objects.name(namespace)
        kinds = [found for found in self._collector.resources if found.is_namespaced]
        left = await asyncio.gather(
            *(self._delete_all(found, name) for found in [*kinds, resources.EVENTS])
        )
        if sum(left) > 0:
            return _EMPTYING_INTERVAL_S
        finalizers = [f for f in namespace["spec"]["finalizers"] if f != _FINALIZER]
        body = {**namespace, "spec": {**namespace["spec"], "finalizers": finalizers}}
        try:
            await self._cluster.replace(resources.NAMESPACES, body, "finalize")
        except ApiError as error:
            if not error.is_not_found:
                raise
        return None

    async def _delete_all(self, resource: Resource, namespace: str) -> int:
        """Ask for the deletion of what is there; return how many objects were found."""
        try:
            listed = await self._cluster.call("GET", resource.path(namespace))
        except ApiError as error:
            if error.status in {404, 405}:
                return 0
            raise
        items = listed.get("items") or []
        await asyncio.gather(
            *(
                self._cluster.delete(
                    resource,
                    namespace,
                    objects.name(item),
                    uid=objects.uid(item),
                    propagation="Background",
                )
                for item in items
                if not objects.is_deleting(item)
            )
        )
        return len(items)
