"""The kubelet's HTTP server: container logs, for the API server to pass on, and health."""

import datetime as dt
from collections.abc import Mapping

from aiohttp import web

from loraland_local.apiclient import objects
from loraland_local.kubelet.context import now_utc
from loraland_local.kubelet.logs import LogStore, Query

_LOGS = web.AppKey("logs", LogStore)


def build_application(logs: LogStore) -> web.Application:
    application = web.Application()
    application[_LOGS] = logs
    application.router.add_get("/healthz", _healthz)
    application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", _container_logs)
    return application


async def _healthz(request: web.Request) -> web.Response:
    del request
    return web.Response(text="ok")


async def _container_logs(request: web.Request) -> web.StreamResponse:
    logs = request.app[_LOGS]
    try:
        query = parse_query(request.query, now_utc())
        path = logs.find(
            request.match_info["namespace"],
            request.match_info["pod"],
            request.match_info["container"],
            previous=_is_true(request.query.get("previous")),
        )
    except ValueError as error:
        return web.Response(status=400, text=str(error))
    except FileNotFoundError as error:
        return web.Response(status=404, text=str(error))
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    async for text in logs.read(path, query):
        await response.write(text)
    await response.write_eof()
    return response


def parse_query(parameters: Mapping[str, str], now: dt.datetime) -> Query:
    """Read the parameters of a log request; ``ValueError`` names the one that is wrong."""
    since_s = _number(parameters, "sinceSeconds")
    since = objects.parse_time(parameters.get("sinceTime"))
    if since_s is not None:
        since = now - dt.timedelta(seconds=since_s)
    return Query(
        follow=_is_true(parameters.get("follow")),
        tail_lines=_number(parameters, "tailLines"),
        since=since,
        timestamps=_is_true(parameters.get("timestamps")),
        limit_bytes=_number(parameters, "limitBytes"),
    )


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in {"true", "1"}


def _number(parameters: Mapping[str, str], name: str) -> int | None:
    text = parameters.get(name)
    if text is None or text == "":
        return None
    if not text.isdecimal():
        raise ValueError(f"{name}: expected a number, found {text!r}")
    return int(text)
