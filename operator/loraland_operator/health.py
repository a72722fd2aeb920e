"""Answers the kubelet's probes: ``GET /healthz``."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

# Returns what is wrong, or nothing.
Check = Callable[[], str]


@asynccontextmanager
async def serving(address: str, port: int, checks: Mapping[str, Check]) -> AsyncIterator[None]:
    """Answer 200 while no check finds anything, else 500 with what was found, while in the block."""

    async def answer(_: web.Request) -> web.Response:
        found = {name: problem for name, check in checks.items() if (problem := check())}
        status = 500 if found else 200
        return web.json_response(found or {"status": "ok"}, status=status)

    application = web.Application()
    application.router.add_get("/healthz", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        yield
    finally:
        await runner.cleanup()
