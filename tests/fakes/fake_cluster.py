"""A cluster that answers list and watch from a script, for the informer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.resources import Resource

Object = dict[str, Any]


class FakeCluster:
    """Serves prepared lists, one a call, and whatever a test puts into ``events``.

    An event is (type, object), or an ``ApiError`` that ends the watch; ``None`` ends it quietly.
    """

    def __init__(self, *lists: tuple[list[Object], str]) -> None:
        self.lists = list(lists)
        self.events: asyncio.Queue[tuple[str, Object] | ApiError | None] = asyncio.Queue()
        self.watched_from: list[str] = []

    async def list(
        self, resource: Resource, *, accept: str = "", **query: str
    ) -> tuple[list[Object], str]:
        del resource, accept, query
        return self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]

    async def watch(
        self,
        resource: Resource,
        resource_version: str,
        *,
        timeout_s: int,
        accept: str,
        **query: str,
    ) -> AsyncIterator[tuple[str, Object]]:
        del resource, timeout_s, accept, query
        self.watched_from.append(resource_version)
        while True:
            event = await self.events.get()
            if event is None:
                return
            if isinstance(event, ApiError):
                raise event
            yield event
