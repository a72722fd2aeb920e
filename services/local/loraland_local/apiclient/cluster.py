"""The only caller of the Kubernetes API in the laptop's controllers and kubelet.

Dictionaries in, dictionaries out. Each call has a timeout; connection failures, throttling and
server errors are retried with backoff and jitter where repeating is safe.
"""

import asyncio
import json
import pathlib
import random
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import kube_config

from loraland_local.apiclient import errors
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.objects import Object
from loraland_local.apiclient.resources import Resource

__all__ = ["ApiError", "Cluster"]

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA_ONLY_EVENTS = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

_CALL_TIMEOUT_S = 15.0
_MAX_ATTEMPTS = 5
_FIRST_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 5.0
_PAGE_SIZE = 500


class Cluster:
    """A Kubernetes API as a kubeconfig describes it."""

    def __init__(self, configuration: Configuration, authorization: str) -> None:
        rest = RESTClientObject(configuration)
        self._server = str(configuration.host).rstrip("/")
        self._authorization = authorization
        self._certificate_authority = _read_certificate_authority(configuration)
        ssl_context: ssl.SSLContext = rest.ssl_context
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=ssl_context), read_bufsize=2**21
        )

    @classmethod
    async def connect(cls, kubeconfig: pathlib.Path | None) -> Self:
        """Read the kubeconfig (``None``: the client's usual places)."""
        configuration = Configuration()
        await kube_config.load_kube_config(
            config_file=str(kubeconfig) if kubeconfig else None, client_configuration=configuration
        )
        token = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return cls(configuration, token or "")

    @property
    def server(self) -> str:
        return self._server

    @property
    def endpoint(self) -> tuple[str, int]:
        """Return the API server's host and port."""
        parts = urllib.parse.urlsplit(self._server)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def certificate_authority(self) -> str:
        """Return the PEM certificates that vouch for the API server; empty over plain HTTP."""
        return self._certificate_authority

    async def close(self) -> None:
        await self._session.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        return await self.call("GET", resource.path(namespace, name))

    async def get_or_none(self, resource: Resource, namespace: str, name: str) -> Object | None:
        try:
            return await self.get(resource, namespace, name)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    async def list(
        self, resource: Resource, *, accept: str = "application/json", **query: str
    ) -> tuple[list[Object], str]:
        """Return all objects, page by page, and the resource version they were read at."""
        items: list[Object] = []
        query = {**query, "limit": str(_PAGE_SIZE)}
        while True:
            page = await self.call("GET", resource.path(), query=query, accept=accept)
            items += page.get("items") or []
            listed = page.get("metadata") or {}
            if not listed.get("continue"):
                return items, str(listed.get("resourceVersion", ""))
            query["continue"] = listed["continue"]

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        return await self.call("POST", resource.path(namespace), body=body)

    async def replace(
        self, resource: Resource, obj: Mapping[str, Any], subresource: str = ""
    ) -> Object:
        meta = obj["metadata"]
        path = resource.path(meta.get("namespace", ""), meta["name"], subresource)
        return await self.call("PUT", path, body=dict(obj))

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Any,
        *,
        patch_type: str = MERGE_PATCH,
        subresource: str = "",
    ) -> Object:
        path = resource.path(namespace, name, subresource)
        return await self.call("PATCH", path, body=body, content_type=patch_type)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        grace_period_s: int | None = None,
        propagation: str = "",
    ) -> None:
        """Ask for an object's deletion; one that is gone, or another one by now, is fine."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if propagation:
            options["propagationPolicy"] = propagation
        try:
            await self.call("DELETE", resource.path(namespace, name), body=options)
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """Send one request; return the decoded answer or raise ``ApiError``."""
        backoff_s = _FIRST_BACKOFF_S
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                return await self._call_once(
                    method,
                    path,
                    query=query,
                    body=body,
                    content_type=content_type,
                    accept=accept,
                )
            except ApiError as error:
                if attempt == _MAX_ATTEMPTS or not _is_worth_retrying(method, error):
                    raise
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))  # noqa: S311 jitter
            backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
        raise AssertionError("the last attempt returns or raises")

    async def _call_once(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        accept: str,
    ) -> Object:
        headers = self._headers(accept)
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body).encode()
        try:
            async with self._session.request(
                method,
                self._server + path,
                params=dict(query or {}),
                headers=headers,
                data=data,
                timeout=aiohttp.ClientTimeout(total=_CALL_TIMEOUT_S),
            ) as response:
                text = await response.text()
                if response.status >= 400:
                    raise errors.parse(response.status, text)
                return dict(json.loads(text)) if text else {}
        except aiohttp.ClientConnectorError as error:
            raise ApiError(0, "Unreachable", f"{self._server}: {error}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(0, "Interrupted", f"{method} {path}: {error!r}") from error

    async def watch(
        self,
        resource: Resource,
        resource_version: str,
        *,
        timeout_s: int,
        accept: str = "application/json",
        **query: str,
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield (event type, object) until the server ends the stream."""
        parameters = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_s),
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CALL_TIMEOUT_S, sock_read=timeout_s + _CALL_TIMEOUT_S
        )
        try:
            async with self._session.get(
                self._server + resource.path(),
                params=parameters,
                headers=self._headers(accept),
                timeout=timeout,
            ) as response:
                if response.status >= 400:
                    raise errors.parse(response.status, await response.text())
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise errors.parse(0, json.dumps(event["object"]))
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, "Interrupted", f"watch of {resource.plural}: {error!r}") from error

    def _headers(self, accept: str) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": "loraland-local"}
        if self._authorization:
            headers["Authorization"] = self._authorization
        return headers


def _is_worth_retrying(method: str, error: ApiError) -> bool:
    if error.status in {429, 503} or error.reason == "Unreachable":
        return True
    # Whether an interrupted or failed creation took effect is not known: its caller looks again.
    return method != "POST" and (error.status == 0 or error.status >= 500)


def _read_certificate_authority(configuration: Configuration) -> str:
    if configuration.ca_cert_data:
        data = configuration.ca_cert_data
        return data.decode() if isinstance(data, bytes) else str(data)
    if configuration.ssl_ca_cert:
        return pathlib.Path(configuration.ssl_ca_cert).read_text()
    return ""
