"""An API server seen through a proxy that answers in its place, is slow, loses answers, or is away.

It forwards to the real one, watch streams included. A fault strikes each place (method and path) a
few times and then no more, so that whoever tries again gets through.
"""

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp
import yaml
from aiohttp import web
from kube_api import content_of

Kind = Literal["answer", "lost", "slow"]
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
READS = frozenset({"GET"})


@dataclass(frozen=True)
class Fault:
    """What happens to a request for objects, the first ``times`` that it is for the same place.

    ``answer`` is given instead of the server's; ``lost`` cuts the connection when the server has
    done what it was asked for; ``slow`` waits before it forwards.
    """

    kind: Kind
    status: int = 0
    methods: frozenset[str] = READS | WRITES
    times: int = 2
    delay_s: float = 1.5


class FaultyApi:
    """Listens on a port of its own for as long as the context lasts."""

    def __init__(self, kubeconfig: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        cluster = document["clusters"][0]["cluster"]
        self._target = cluster["server"]
        self._tls = ssl.create_default_context(
            cadata=content_of(cluster, "certificate-authority") or None
        )
        self._document = document
        self._fault: Fault | None = None
        self._hits: Counter[str] = Counter()
        self._is_down = False
        self._port = 0
        self._streams: set[web.StreamResponse] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    @property
    def num_struck(self) -> int:
        return sum(self._hits.values())

    def write_kubeconfig(self, path: Path) -> None:
        """Write the kubeconfig anew, with the proxy as its server."""
        self._document["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self._port}"}
        path.write_text(yaml.safe_dump(self._document))

    def set_fault(self, fault: Fault | None) -> None:
        self._hits.clear()
        self._fault = fault

    @contextmanager
    def down(self) -> Iterator[None]:
        """Cut every connection until the block ends, streams too."""
        self._is_down = True
        asyncio.run_coroutine_threadsafe(self._cut_streams(), self._loop).result(timeout=30)
        try:
            yield
        finally:
            self._is_down = False

    @contextmanager
    def serving(self) -> Iterator["FaultyApi"]:
        self._thread.start()
        runner = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(timeout=30)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._stop(runner), self._loop).result(timeout=30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=30)
            self._loop.close()

    async def _start(self) -> web.AppRunner:
        # What is compressed stays so; what comes out is what went in.
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0),
        )
        application = web.Application(client_max_size=16 * 2**20)
        application.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._port = runner.addresses[0][1]
        return runner

    async def _stop(self, runner: web.AppRunner) -> None:
        await self._cut_streams()
        await runner.cleanup()
        await self._session.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _cut_streams(self) -> None:
        for stream in list(self._streams):
            if stream._req is not None and stream._req.transport is not None:
                stream._req.transport.abort()

    def _strike(self, request: web.Request) -> Fault | None:
        """Return what happens to this request; discovery is left alone."""
        fault, place = self._fault, f"{request.method} {request.path}"
        is_object = request.path.count("/") > 3 or request.path.startswith("/api/v1/")
        if fault is None or not is_object or request.method not in fault.methods:
            return None
        if self._hits[place] >= fault.times:
            return None
        self._hits[place] += 1
        return fault

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = self._strike(request)
        if self._is_down:
            return self._cut(request)
        if fault is not None and fault.kind == "answer":
            headers = {"Retry-After": "1"} if fault.status == 429 else {}
            message = {"kind": "Status", "status": "Failure", "message": "struck by the test"}
            return web.json_response(message, status=fault.status, headers=headers)
        if fault is not None and fault.kind == "slow":
            await asyncio.sleep(fault.delay_s)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "content-length", "connection", "transfer-encoding")
        }
        url = f"{self._target}{request.path_qs}"
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=body or None
            ) as answer:
                if fault is not None and fault.kind == "lost":
                    await answer.read()
                    return self._cut(request)
                return await self._pass_on(request, answer)
        except aiohttp.ClientError:
            return self._cut(request)

    async def _pass_on(
        self, request: web.Request, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        stream = web.StreamResponse(status=answer.status)
        for name in ("Content-Type", "Retry-After", "Content-Encoding"):
            if name in answer.headers:
                stream.headers[name] = answer.headers[name]
        await stream.prepare(request)
        self._streams.add(stream)
        try:
            async for piece in answer.content.iter_any():
                await stream.write(piece)
            await stream.write_eof()
        finally:
            self._streams.discard(stream)
        return stream

    @staticmethod
    def _cut(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)
