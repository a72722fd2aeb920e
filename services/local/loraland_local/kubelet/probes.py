"""One probe of a container, whatever its kind: exec, HTTP, TCP or gRPC.

Returns what is wrong as a sentence, or None when all is well.
"""

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence

import aiohttp

from loraland_local.apiclient.objects import Object

Execute = Callable[[Sequence[str], float], Awaitable[tuple[int, str]]]
"""(command, seconds) → exit code and output; ``TimeoutError`` when it took too long."""

_MAX_MESSAGE_LETTERS = 1024

# The certificates of probed containers are their own affair, as for the real kubelet.
_UNVERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE


@dataclasses.dataclass(frozen=True)
class Target:
    """Where the container can be reached."""

    host: str
    ports: Mapping[str, int]
    execute: Execute

    def port(self, wanted: int | str) -> int:
        if isinstance(wanted, int) or str(wanted).isdecimal():
            return int(wanted)
        if wanted not in self.ports:
            raise ValueError(f"the container has no port named {wanted!r}")
        return self.ports[wanted]


async def check(probe: Object, target: Target) -> str | None:
    """Run the probe once, within its ``timeoutSeconds``."""
    timeout_s = float(probe.get("timeoutSeconds") or 1)
    try:
        if "exec" in probe:
            return await _check_exec(probe["exec"]["command"], target, timeout_s)
        async with asyncio.timeout(timeout_s):
            return await _check_network(probe, target, timeout_s)
    except TimeoutError:
        return f"no answer within {timeout_s:g}s: context deadline exceeded"
    except (OSError, ValueError, aiohttp.ClientError) as error:
        return str(error)[:_MAX_MESSAGE_LETTERS]


async def _check_network(probe: Object, target: Target, timeout_s: float) -> str | None:
    if "httpGet" in probe:
        return await check_http(probe["httpGet"], target)
    if "tcpSocket" in probe:
        return await _check_tcp(probe["tcpSocket"], target)
    if "grpc" in probe:
        return await _check_grpc(probe["grpc"], target, timeout_s)
    return f"unknown kind of probe: {', '.join(sorted(probe))}"


async def _check_exec(command: Sequence[str], target: Target, timeout_s: float) -> str | None:
    try:
        code, output = await target.execute(command, timeout_s)
    except TimeoutError:
        return f"command timed out: {' '.join(command)!r} timed out after {timeout_s:g}s"
    if code == 0:
        return None
    return output[:_MAX_MESSAGE_LETTERS].strip() or f"command exited with code {code}"


async def check_http(request: Object, target: Target) -> str | None:
    """Send a GET; any answer from 200 to 399 is success, redirects are not followed."""
    scheme = str(request.get("scheme") or "HTTP").lower()
    host = request.get("host") or target.host
    path = str(request.get("path") or "/")
    url = f"{scheme}://{host}:{target.port(request['port'])}/{path.lstrip('/')}"
    headers = {"User-Agent": "kube-probe/1.37", "Accept": "*/*"}
    for header in request.get("httpHeaders") or []:
        headers[header["name"]] = header["value"]
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_UNVERIFIED, force_close=True)
        ) as session,
        session.get(url, headers=headers, allow_redirects=False) as response,
    ):
        if 200 <= response.status < 400:
            return None
        return f"HTTP probe failed with statuscode: {response.status}"


async def _check_tcp(request: Object, target: Target) -> str | None:
    host = request.get("host") or target.host
    _, writer = await asyncio.open_connection(host, target.port(request["port"]))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None


async def _check_grpc(request: Object, target: Target, timeout_s: float) -> str | None:
    # gRPC is slow to import, and most pods have no such probe.
    import grpc  # noqa: PLC0415
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    address = f"{target.host}:{target.port(request['port'])}"
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service=request.get("service") or "")
        try:
            answer = await stub.Check(asked, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return f"grpc health check of {address}: {error.code().name}: {error.details()}"
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return None
    word = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return f'service unhealthy (responded with "{word}")'
