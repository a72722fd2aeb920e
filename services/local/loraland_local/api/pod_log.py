"""Pod logs: asks the node's kubelet and passes on what it sends."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp import web

from . import errors, kinds
from .cluster import Cluster

Json = dict[str, Any]

KUBELET_URL = "loraland.dev/kubelet-url"
CONNECT_TIMEOUT_S = 5.0
_PARAMETERS = (
    *("follow", "tailLines", "previous", "sinceSeconds", "sinceTime", "timestamps", "limitBytes"),
)


def container_of(pod: Json, asked: str) -> str:
    """Return whose log is meant; a pod with one container needs no name."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    names = [entry["name"] for entry in spec.get("containers") or []]
    inits = [entry["name"] for entry in spec.get("initContainers") or []]
    if not asked:
        if len(names) == 1:
            return str(names[0])
        raise errors.bad_request(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
            + (f" or one of the init containers: [{' '.join(inits)}]" if inits else "")
        )
    if asked not in {*names, *inits}:
        raise errors.bad_request(f"container {asked} is not valid for pod {name}")
    return asked


def target(cluster: Cluster, namespace: str, name: str, asked: str) -> str | None:
    """Return the kubelet's address of a log; None for a pod that is on no node yet."""
    pod = cluster.operations.get(kinds.PODS, namespace, name)
    container = container_of(pod, asked)
    node_name = pod["spec"].get("nodeName")
    if not node_name:
        return None
    node = cluster.store.get(kinds.NODES.storage_key, ("", node_name))
    if node is None:
        raise errors.not_found(kinds.PODS, node_name)
    base = (node["metadata"].get("annotations") or {}).get(KUBELET_URL)
    if not base:
        raise errors.internal(
            f"node {node_name} has no annotation {KUBELET_URL}; its kubelet serves no logs"
        )
    return f"{base.rstrip('/')}/containerLogs/{namespace}/{name}/{container}"


async def stream(
    cluster: Cluster,
    session: aiohttp.ClientSession,
    request: web.Request,
    route_name: tuple[str, str],
) -> web.StreamResponse:
    """Send a container's log to the client as it comes."""
    namespace, name = route_name
    url = target(cluster, namespace, name, request.query.get("container", ""))
    headers = {"Content-Type": "text/plain"}
    if url is None:
        return web.Response(headers=headers)
    query = {key: request.query[key] for key in _PARAMETERS if key in request.query}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    try:
        async with session.get(url, params=query, timeout=timeout) as source:
            if source.status != 200:
                text = (await source.text()).strip()
                reason = "NotFound" if source.status == 404 else "BadRequest"
                raise errors.ApiError(source.status, reason, text or f"kubelet: {source.reason}")
            reply = web.StreamResponse(headers=headers)
            await reply.prepare(request)
            async for chunk in source.content.iter_any():
                await reply.write(chunk)
            await reply.write_eof()
            return reply
    except aiohttp.ClientConnectorError as error:
        raise errors.internal(f"Get {url}: the node's kubelet does not answer: {error}") from error
