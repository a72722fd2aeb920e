"""Probes against real little servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from loraland_local.kubelet import probes
from loraland_local.kubelet.probes import Target

Object = dict[str, Any]
HOST = "127.0.0.1"


async def execute(command: Sequence[str], timeout_s: float) -> tuple[int, str]:
    if command[0] == "slow":
        raise TimeoutError
    return int(command[0]), "the output"


def target(port: int = 1) -> Target:
    return Target(HOST, {"web": port}, execute)


@contextlib.asynccontextmanager
async def http_server(status: int) -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.5 if request.path == "/slow" else 0)
        return web.Response(status=status if request.headers.get("X") != "ok" else 204)

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "request_fields", "expected"),
    [
        pytest.param(200, {"port": "web"}, None, id="named-port"),
        pytest.param(302, {"port": "web"}, None, id="redirect-counts"),
        pytest.param(
            503, {"port": "web"}, "HTTP probe failed with statuscode: 503", id="unavailable"
        ),
        pytest.param(
            503, {"port": "web", "httpHeaders": [{"name": "X", "value": "ok"}]}, None, id="header"
        ),
        pytest.param(
            200,
            {"port": "web", "path": "/slow"},
            "no answer within 0.2s: context deadline exceeded",
            id="slow",
        ),
        pytest.param(
            200, {"port": "nope"}, "the container has no port named 'nope'", id="no-such-port"
        ),
    ],
)
async def test_http_probe_reads_the_status(
    status: int, request_fields: Object, expected: str | None
) -> None:
    """Statuses from 200 to 399 are well; others, silence and a wrong port are told."""
    async with http_server(status) as port:
        probe = {"httpGet": request_fields, "timeoutSeconds": 0.2}
        assert await probes.check(probe, target(port)) == expected


async def test_tcp_probe_connects() -> None:
    """A port that listens is well, and a closed one is not."""
    async with http_server(200) as port:
        open_port = await probes.check({"tcpSocket": {"port": port}}, target())
    closed = await probes.check({"tcpSocket": {"port": port}}, target())

    assert open_port is None
    assert "Connect call failed" in (closed or "")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(["0"], None, id="zero"),
        pytest.param(["1"], "the output", id="output-is-the-reason"),
        pytest.param(["slow"], "command timed out: 'slow' timed out after 1s", id="too-slow"),
    ],
)
async def test_exec_probe_reads_the_exit_code(command: list[str], expected: str | None) -> None:
    """The exit code decides, and the output says why."""
    assert await probes.check({"exec": {"command": command}}, target()) == expected


async def test_grpc_probe_asks_the_health_service() -> None:
    """A serving service is well; one that is not, and one that is unknown, are told."""
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{HOST}:0")
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await servicer.set("lazy", health_pb2.HealthCheckResponse.NOT_SERVING)
    await server.start()
    found = [
        await probes.check({"grpc": {"port": port, "service": name}}, target())
        for name in ("", "lazy", "nobody")
    ]
    await server.stop(None)

    assert found[0] is None
    assert found[1] == 'service unhealthy (responded with "NOT_SERVING")'
    assert "NOT_FOUND" in (found[2] or "")
