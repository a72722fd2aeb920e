"""The embedded API in this process, with every exchange written down."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from aiohttp import web
from loraland_local.api import certificates, kubeconfig
from loraland_local.api.cluster import Cluster
from loraland_local.api.server import Server

Json = dict[str, Any]
TOKEN = "parity"


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One request and its answer; ``body`` is None where it was a stream or no JSON."""

    method: str
    path: str
    status: int
    content_type: str
    body: Any


class Recorder:
    """Collects exchanges; ``take`` empties it."""

    def __init__(self) -> None:
        self._exchanges: list[Exchange] = []

    def take(self) -> list[Exchange]:
        found, self._exchanges = self._exchanges, []
        return found

    @property
    def middleware(self) -> Any:
        @web.middleware
        async def record(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            reply = await handler(request)
            body = None
            kind = reply.headers.get("Content-Type", "")
            if isinstance(reply, web.Response) and reply.body and "json" in kind:
                body = json.loads(bytes(reply.body))  # type: ignore[arg-type]
            self._exchanges.append(
                Exchange(request.method, request.path_qs, reply.status, kind, body)
            )
            return reply

        return record


@dataclasses.dataclass(frozen=True)
class Running:
    """A server that answers, and how to reach it."""

    url: str
    kubeconfig: Path
    authority: Path
    recorder: Recorder


@contextlib.contextmanager
def running(state: Path) -> Iterator[Running]:
    """Serve from a thread of its own until the block ends."""
    authority, certificate, key = certificates.ensure(state / "pki", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    recorder, started = Recorder(), threading.Event()
    loop = asyncio.new_event_loop()
    port: list[int] = []
    stop = asyncio.Event()

    async def serve() -> None:
        app = Server(Cluster(state, admin_token=TOKEN), address="127.0.0.1").application()
        app.middlewares.append(recorder.middleware)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        port.append(runner.addresses[0][1])
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert started.wait(30), "the embedded API did not start"
    url = f"https://127.0.0.1:{port[0]}"
    config = state / "kubeconfig"
    kubeconfig.write(config, url=url, authority=authority.read_bytes(), token=TOKEN)
    try:
        yield Running(url, config, authority, recorder)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
