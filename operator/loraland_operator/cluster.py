"""The Kubernetes door: the only caller of its API beside kopf's watch streams.

Objects are plain dictionaries. Foreign errors become ours; what may be sent twice is retried with
backoff and jitter.
"""

import asyncio
import json
import logging
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from loraland_core import names
from loraland_core.errors import InvalidInput, NotFound, Unavailable

from loraland_operator import answers
from loraland_operator.answers import AlreadyExists, Expired, Forbidden, Stale

Object = dict[str, Any]
log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 15
MAX_ATTEMPTS = 4
BACKOFF_S = 0.2
PAGE_SIZE = 500
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 4096

APPLY_PATCH = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass(frozen=True)
class Resource:
    """A kind's place in the API."""

    api_version: str
    plural: str
    kind: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [root + self.api_version]
        if namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        return "/".join([*parts, *filter(None, (name, subresource))])


FINE_TUNE_JOBS = Resource(names.API_VERSION, names.FINE_TUNE_JOBS, names.FINE_TUNE_JOB)
ADAPTERS = Resource(names.API_VERSION, names.ADAPTERS, names.ADAPTER)
JOBS = Resource("batch/v1", "jobs", "Job")
PODS = Resource("v1", "pods", "Pod")
CONFIG_MAPS = Resource("v1", "configmaps", "ConfigMap")
SERVICES = Resource("v1", "services", "Service")
SECRETS = Resource("v1", "secrets", "Secret")
EVENTS = Resource("v1", "events", "Event")
LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")
_BY_KIND = {r.kind: r for r in (FINE_TUNE_JOBS, ADAPTERS, JOBS, PODS, CONFIG_MAPS, SERVICES)}


def resource_of(manifest: Mapping[str, Any]) -> Resource:
    return _BY_KIND[manifest["kind"]]


class Cluster:
    """One Kubernetes API server, as KUBECONFIG or the pod's service account names it."""

    def __init__(self, configuration: Configuration) -> None:
        self.identity = ""
        # Asked before each write; whoever may not write any more does not return from it.
        self.before_write: Callable[[], None] = lambda: None
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)
        self._server = str(configuration.host).rstrip("/")

    async def close(self) -> None:
        await self._rest.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        return await self._call("GET", resource.path(namespace, name))

    async def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        try:
            return await self.get(resource, namespace, name)
        except NotFound:
            return None

    async def exists(self, resource: Resource, namespace: str, name: str) -> bool:
        """Return whether an object is there; of a Secret not even the keys are read."""
        try:
            await self._call("GET", resource.path(namespace, name), accept=METADATA_ONLY)
        except NotFound:
            return False
        return True

    async def _read_pages(self, resource: Resource, namespace: str, labels: str) -> list[Object]:
        query = {"limit": str(PAGE_SIZE)} | ({"labelSelector": labels} if labels else {})
        items: list[Object] = []
        while True:
            page = await self._call("GET", resource.path(namespace), query=query)
            # A list leaves out what is the same for all of its items.
            items += [
                {"apiVersion": resource.api_version, "kind": resource.kind, **item}
                for item in page.get("items") or []
            ]
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return items
            query["continue"] = token

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = ""
    ) -> list[Object]:
        """Return all objects of a namespace, or of all of them, page by page."""
        for _ in range(MAX_ATTEMPTS):
            try:
                return await self._read_pages(resource, namespace, labels)
            except Expired:
                log.info("the list of %s took too long, it is begun anew", resource.plural)
        raise Unavailable(f"the list of {resource.plural} expires before it is whole")

    async def apply(self, manifest: Mapping[str, Any], *, manager: str, force: bool) -> Object:
        """Server-side apply: create the object, or make the fields we state true."""
        metadata = manifest["metadata"]
        path = resource_of(manifest).path(metadata["namespace"], metadata["name"])
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._call("PATCH", path, query=query, body=manifest, content_type=APPLY_PATCH)

    async def patch(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        change: Mapping[str, Any],
        *,
        subresource: str = "",
    ) -> Object:
        """Merge ``change`` into the very version that ``obj`` is, or raise ``Stale``."""
        metadata = obj["metadata"]
        seen = {"resourceVersion": metadata["resourceVersion"]}
        body = {**change, "metadata": {**change.get("metadata", {}), **seen}}
        return await self._call(
            "PATCH",
            resource.path(metadata["namespace"], metadata["name"], subresource),
            query={"fieldManager": names.MANAGER_OPERATOR},
            body=body,
            content_type=MERGE_PATCH,
        )

    async def create(self, resource: Resource, obj: Mapping[str, Any]) -> Object:
        """Create an object, or raise ``AlreadyExists``."""
        return await self._call("POST", resource.path(obj["metadata"]["namespace"]), body=obj)

    async def replace(self, resource: Resource, obj: Mapping[str, Any]) -> Object:
        """Replace the very version that ``obj`` was read as, or raise ``Stale``."""
        metadata = obj["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"])
        return await self._call("PUT", path, body=obj)

    async def delete(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        """Delete this very object; one that is gone, or another of its name, is left alone."""
        metadata = obj["metadata"]
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": metadata["uid"]},
            "propagationPolicy": "Background",
        }
        try:
            path = resource.path(metadata["namespace"], metadata["name"])
            await self._call("DELETE", path, body=options)
        except (NotFound, Stale):
            log.debug("%s %s is gone already", resource.kind, metadata["name"])

    async def create_event(self, event: Mapping[str, Any]) -> None:
        """Post an event; the same one again is counted."""
        metadata = event["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        try:
            await self._call("POST", EVENTS.path(namespace), body=event)
        except AlreadyExists:
            before = await self.get(EVENTS, namespace, name)
            again = {"count": before.get("count", 1) + 1, "lastTimestamp": event["lastTimestamp"]}
            await self.patch(EVENTS, before, again)

    async def read_log(self, namespace: str, pod: str, container: str) -> str:
        """Return the end of a container's log; empty where there is none to read."""
        query = {
            "container": container,
            "tailLines": str(LOG_TAIL_LINES),
            "limitBytes": str(LOG_TAIL_BYTES),
        }
        try:
            data = await self._request("GET", PODS.path(namespace, pod, "log"), query=query)
        except (NotFound, InvalidInput, Unavailable) as error:
            log.info("log of %s/%s cannot be read: %s", namespace, pod, error)
            return ""
        return data.decode(errors="replace").strip()

    async def _call(self, method: str, path: str, **arguments: Any) -> Object:
        document: Object = json.loads(await self._request(method, path, **arguments))
        return document

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        url = f"{self._server}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {
            "Accept": accept,
            "Content-Type": content_type,
            "User-Agent": f"loraland-operator ({self.identity})",
        }
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return await self._request_once(method, url, headers, body)
            except Unavailable as error:
                if isinstance(error, Stale | Forbidden | Expired) or attempt == MAX_ATTEMPTS:
                    raise
                pause_s = max(BACKOFF_S * 2**attempt, min(error.retry_after_s, 2.0))
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
        raise AssertionError("the loop returns or raises")

    async def _request_once(
        self, method: str, url: str, headers: dict[str, str], body: Mapping[str, Any] | None
    ) -> bytes:
        # Read each time: a service account's token is renewed while we run.
        token = await self._configuration.get_api_key_with_prefix(
            "BearerToken", alias="authorization"
        )
        if token:
            headers = {**headers, "Authorization": token}
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        if method != "GET":
            self.before_write()
        try:
            response = await self._rest.request(
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            data: bytes = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            detail = error or type(error).__name__
            raise Unavailable(
                f"Kubernetes API at {self._server} does not answer: {detail}", retry_after_s=0.2
            ) from error
        if response.status < 400:
            return data
        raise answers.translate(response.status, data, response.headers.get("Retry-After"))


async def connect(kubeconfig: str = "") -> Cluster:
    """Find the API server: the file given, KUBECONFIG, the pod's service account, then ~/.kube."""
    configuration = Configuration()
    if not (kubeconfig or os.environ.get("KUBECONFIG")):
        try:
            load_incluster_config(client_configuration=configuration)
        except ConfigException:
            log.debug("not in a pod")
        else:
            return Cluster(configuration)
    try:
        await load_kube_config(kubeconfig or None, client_configuration=configuration)
    except ConfigException as error:
        raise InvalidInput(
            f"no cluster: {error}; set KUBECONFIG, or run in a pod with a service account",
            field="KUBECONFIG",
        ) from error
    return Cluster(configuration)
