"""The HTTP front: authentication, authorization, documents, resources, streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from . import (
    access,
    audit,
    discovery,
    errors,
    identity,
    kinds,
    lists,
    openapi,
    pod_log,
    replies,
    resource_api,
    routes,
    storage,
    watching,
)
from .cluster import Cluster
from .identity import User
from .routes import Route

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOG = logging.getLogger(__name__)
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
OPENAPI_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
HEALTH_PATHS = {"/healthz", "/livez", "/readyz"}
_ATTACHING = {"exec", "attach", "portforward", "proxy"}
MAX_BODY_BYTES = 8 * 2**20


class Server:
    """One aiohttp application over a cluster."""

    def __init__(self, cluster: Cluster, *, address: str, audit_log: Path | None = None) -> None:
        self._audit_log = audit_log
        self._cluster = cluster
        self._address = address
        self._api = resource_api.ResourceApi(cluster)
        self._session: aiohttp.ClientSession | None = None
        self._streams: set[asyncio.Task[Any]] = set()

    def application(self) -> web.Application:
        recording = [audit.middleware(self._audit_log)] if self._audit_log else []
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=recording)
        app.router.add_route("*", "/{path:.*}", self._answer)
        app.on_startup.append(self._open)
        app.on_shutdown.append(self._end_streams)
        app.on_cleanup.append(self._close)
        return app

    async def _open(self, _: web.Application) -> None:
        self._session = aiohttp.ClientSession()

    async def _end_streams(self, _: web.Application) -> None:
        for task in list(self._streams):
            task.cancel()

    async def _close(self, _: web.Application) -> None:
        if self._session is not None:
            await self._session.close()
        self._cluster.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._dispatch(request)
        except errors.ApiError as error:
            return replies.error_reply(error)
        except web.HTTPRequestEntityTooLarge:
            message = f"the request is larger than {MAX_BODY_BYTES} bytes"
            return replies.error_reply(
                errors.ApiError(413, "RequestEntityTooLarge", message, details={})
            )
        except (ConnectionResetError, asyncio.CancelledError):
            raise
        except Exception as error:
            LOG.exception("%s %s", request.method, request.path)
            return replies.error_reply(errors.internal(f"{type(error).__name__}: {error}"))

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/") or "/"
        if any(path == known or path.startswith(f"{known}/") for known in HEALTH_PATHS):
            return _text("ok")
        user = self._user(request)
        if path == "/version":
            return replies.json_reply(discovery.VERSION)
        route = routes.parse(path)
        if route is None:
            self._authorize_path(user, request.method, path)
            return self._document(request, path)
        return await self._resource(request, route, user)

    # --- who and whether

    def _user(self, request: web.Request) -> User:
        user = self._cluster.tokens.caller(request.headers)
        name = request.headers.get("Impersonate-User")
        if not name:
            return user
        asked = access.Attributes("impersonate", resource="users", name=name)
        parts = name.split(":")
        if name.startswith("system:serviceaccount:") and len(parts) == 4:
            asked = access.Attributes(
                "impersonate", resource="serviceaccounts", namespace=parts[2], name=parts[3]
            )
        self._authorize(user, asked)
        groups = request.headers.getall("Impersonate-Group", [])
        for group in groups:
            self._authorize(user, access.Attributes("impersonate", resource="groups", name=group))
        return identity.impersonated(name, groups)

    def _authorize(self, user: User, asked: access.Attributes) -> None:
        if access.decide(self._cluster.store, user, asked).allowed:
            return
        what = self._cluster.catalog.any_version(asked.group, asked.resource)
        if what is None:
            message = f"forbidden: {access.refusal(user, asked)}"
            raise errors.ApiError(403, "Forbidden", message, details={})
        raise errors.forbidden(what, asked.name, access.refusal(user, asked))

    def _authorize_path(self, user: User, method: str, path: str) -> None:
        asked = access.Attributes(method.lower(), path=path)
        if not access.decide(self._cluster.store, user, asked).allowed:
            message = f'forbidden: User "{user.name}" cannot {method.lower()} path "{path}"'
            raise errors.ApiError(403, "Forbidden", message, details={})

    # --- documents

    def _document(self, request: web.Request, path: str) -> web.StreamResponse:
        accept, catalog = request.headers.get("Accept", ""), self._cluster.catalog
        if path in {"/api", "/apis"}:
            if "as=APIGroupDiscoveryList" in accept and "v=v2;" in accept + ";":
                found = discovery.aggregated(catalog, core=path == "/api")
                return self._cached(request, found, AGGREGATED)
            if path == "/api":
                return replies.json_reply(discovery.core_versions(self._address))
            return replies.json_reply(discovery.groups(catalog))
        if path.startswith("/openapi"):
            return self._openapi(request, path)
        parts = path.strip("/").split("/")
        body: Json | None = None
        if parts[0] == "api" and len(parts) == 2:
            body = discovery.resources(catalog, "", parts[1])
        elif parts[0] == "apis" and len(parts) == 2:
            body = discovery.group(catalog, parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            body = discovery.resources(catalog, parts[1], parts[2])
        return replies.not_found_text() if body is None else replies.json_reply(body)

    def _cached(self, request: web.Request, body: Json, content_type: str) -> web.Response:
        known = request.headers.get("If-None-Match", "")
        return replies.cached(storage.encode(body), known, content_type)

    def _openapi(self, request: web.Request, path: str) -> web.StreamResponse:
        if path == "/openapi/v3":
            body = storage.encode(self._cluster.documents.index())
            return replies.json_reply(body, content_type="text/plain; charset=utf-8")
        known = request.headers.get("If-None-Match", "")
        if path == "/openapi/v2":
            if "proto" in request.headers.get("Accept", ""):
                return replies.cached(openapi.version_two_protobuf(), known, OPENAPI_V2_PROTOBUF)
            return self._cached(request, openapi.version_two(), "application/json")
        found = self._cluster.documents.document(path.removeprefix("/openapi/v3/"))
        if found is None:
            return replies.not_found_text()
        return replies.cached(found, known, "application/json")

    # --- resources

    async def _resource(self, request: web.Request, route: Route, user: User) -> web.StreamResponse:
        verb = routes.verb(request.method, route, request.query)
        resource = self._cluster.catalog.find(route.group, route.version, route.plural)
        if resource is None:
            return replies.not_found_text()
        namespace = route.name if resource is kinds.NAMESPACES else route.namespace
        self._authorize(
            user,
            access.Attributes(
                verb, route.group, route.plural, route.subresource, namespace, route.name
            ),
        )
        if route.subresource in _ATTACHING and resource is kinds.PODS:
            raise errors.bad_request(
                f"{route.subresource} is not available here: pods are processes of this machine;"
                " use its own tools"
            )
        if route.subresource and route.subresource not in resource.subresources:
            return replies.not_found_text()
        if verb not in resource.verbs and not route.subresource:
            raise errors.method_not_allowed()
        if resource.namespaced and not route.namespace and (route.name or verb == "create"):
            return replies.not_found_text()
        if route.subresource == "log":
            assert self._session is not None
            return await self._stream(
                pod_log.stream(self._cluster, self._session, request, (route.namespace, route.name))
            )
        read = resource_api.Request(request, await request.read(), route, resource, user)
        if verb == "watch":
            return await self._stream(self._watch(request, read))
        return self._api.answer(read, verb)

    async def _stream(self, answer: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        """Run an answer without an end of its own so that shutting down ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            return await answer
        finally:
            self._streams.discard(task)

    async def _watch(self, request: web.Request, read: resource_api.Request) -> web.StreamResponse:
        timeout_s = lists.number(read.query, "timeoutSeconds") or random.randint(1800, 3600)  # noqa: S311
        query = dict(read.query)
        if read.route.name:
            query["fieldSelector"] = f"metadata.name={read.route.name}"
        watch = watching.Watch(
            self._cluster.store,
            read.resource,
            read.route.namespace,
            query,
            replies.watch_renderer(read.resource, read.form, read.include),
        )
        reply = web.StreamResponse(headers={"Content-Type": "application/json"})
        await reply.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # the client has seen enough
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    async for line in watch.lines():
                        await reply.write(line)
            await reply.write_eof()
        return reply


def _text(text: str) -> web.Response:
    return web.Response(text=text, headers={"Content-Type": "text/plain; charset=utf-8"})
