"""Every place where the operator waits for somebody outside, by name; and death at one of them.

Sits below the operator's own code, where bytes leave: aiohttp for the Kubernetes API (its requests
and kopf's watches), redis-py's connections, botocore's sessions. So a call that somebody adds is
found without being listed anywhere.
"""

import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import botocore.httpsession
import redis.asyncio.connection

# Polls go on without end; what is new at a place shows within so many visits.
MAX_VISITS = 3
_READS = {"GET", "HEAD", "HGET", "HGETALL", "XRANGE", "XREVRANGE", "ZRANGE", "ZRANGEBYSCORE", "MGET",
          "PING", "CLIENT", "HELLO", "AUTH", "SELECT", "INFO"}  # fmt: skip
_OWN_NAMES = re.compile(r"crash-\d+[a-z0-9-]*|[0-9a-f]{64}|[0-9a-f]{8}-[0-9a-f-]{27}|\d{5,}")


class Points:
    """Notes each point as it is reached; ends the process at the one that it was given."""

    def __init__(self, record: Path, death: str) -> None:
        self._record = record.open("a", buffering=1)
        self._death = death
        self._visits: Counter[str] = Counter()

    def before(self, place: str) -> str:
        """Note a call about to be made; return what names this visit."""
        self._visits[place] += 1
        visit = f"{place} #{self._visits[place]}"
        self._reach(f"{visit} before", self._visits[place])
        return visit

    def after(self, visit: str) -> None:
        """Note a change that was made and whose maker does not know it yet."""
        self._reach(f"{visit} after", int(visit.rpartition("#")[2]))

    def _reach(self, point: str, num_visits: int) -> None:
        if num_visits > MAX_VISITS:
            return
        self._record.write(point + "\n")
        if point == self._death:
            os.kill(os.getpid(), signal.SIGKILL)


def install(points: Points) -> None:
    """Put the points below everything that the operator calls."""
    _watch_http(points)
    _watch_redis(points)
    _watch_s3(points)


def _watch_http(points: Points) -> None:
    request = aiohttp.ClientSession._request

    async def watched(self: Any, method: str, url: Any, **arguments: Any) -> Any:
        parts = urlsplit(str(url))
        watch = " watch" if "watch=true" in parts.query else ""
        visit = points.before(f"api {method.upper()} {_named(parts.path)}{watch}")
        response = await request(self, method, url, **arguments)
        if method.upper() not in _READS:
            points.after(visit)
        return response

    aiohttp.ClientSession._request = watched  # type: ignore[method-assign]


def _watch_redis(points: Points) -> None:
    connection = redis.asyncio.connection.AbstractConnection
    send, read = connection.send_packed_command, connection.read_response
    sent: dict[int, str] = {}

    async def watched_send(self: Any, command: Any, *more: Any, **arguments: Any) -> Any:
        data = command if isinstance(command, bytes) else b"".join(command)
        words = re.findall(rb"\$\d+\r\n([A-Z]{3,})\r\n", data)
        name = " ".join(dict.fromkeys(word.decode() for word in words))
        sent[id(self)] = points.before(f"redis {name}")
        return await send(self, command, *more, **arguments)

    async def watched_read(self: Any, *more: Any, **arguments: Any) -> Any:
        answer = await read(self, *more, **arguments)
        visit = sent.pop(id(self), "")
        if visit and not set(visit.split(" #")[0].split()[1:]) <= _READS:
            points.after(visit)
        return answer

    connection.send_packed_command = watched_send  # type: ignore[method-assign]
    connection.read_response = watched_read  # type: ignore[method-assign]


def _watch_s3(points: Points) -> None:
    session = botocore.httpsession.URLLib3Session
    send = session.send

    def watched(self: Any, request: Any) -> Any:
        visit = points.before(f"s3 {request.method} {_named(urlsplit(request.url).path)}")
        response = send(self, request)
        if request.method not in _READS:
            points.after(visit)
        return response

    session.send = watched


def _named(path: str) -> str:
    """Return a path in which the objects of one scenario look like those of another."""
    return _OWN_NAMES.sub("*", path)
