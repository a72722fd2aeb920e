"""The replicas that a client knows: where they are, what they said last, which to ask next.

Addresses are a list, or a name that resolves to all of them, as a headless Service's does. With more
than one, each is asked every few seconds how it does; the choice itself is ``routing``'s.
"""

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from loraland_core import routing
from loraland_core.rpc import inference_pb2, inference_pb2_grpc

from loraland_client import channels
from loraland_client.channels import Tls

log = logging.getLogger("loraland.client")

# As in gRPC's own naming: the name is resolved to every address behind it.
DNS_PREFIX = "dns:///"
REFRESH_EVERY_S = 5.0
MIN_REFRESH_GAP_S = 0.5
ASK_TIMEOUT_S = 2.0
# A replica that did not answer is asked last for so long.
DOWN_S = 3.0
_SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Metadata = Callable[[], Sequence[tuple[str, str]]]


class Connection:
    """One replica: its channel, and what is known of it."""

    def __init__(self, address: str, tls: Tls | None, *, host: str) -> None:
        self.address = address
        self._channel = channels.open_channel(address, tls, host=host)
        self.stub = inference_pb2_grpc.InferenceStub(self._channel)
        self.num_running = 0
        self._name = address
        self._is_draining = False
        self._num_others = 0
        self._resident: frozenset[str] = frozenset()
        self._rejected: frozenset[str] = frozenset()
        self._down_until_s = 0.0
        self._is_retired = False

    def view(self) -> routing.Replica:
        """Return the replica as the choice sees it."""
        return routing.Replica(
            name=self._name,
            load=self.num_running + self._num_others,
            resident=self._resident,
            rejected=self._rejected,
            is_draining=self._is_draining,
            is_down=time.monotonic() < self._down_until_s,
        )

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count a call for as long as it lasts."""
        self.num_running += 1
        try:
            yield
        finally:
            self.num_running -= 1
            if self._is_retired and not self.num_running:
                self._close_later()

    def note_answer(self, adapter_id: str) -> None:
        """The adapter is in a slot there: it has just answered."""
        self._down_until_s = 0.0
        if adapter_id not in self._resident:
            self._resident |= {adapter_id}

    def note_silence(self) -> None:
        self._down_until_s = time.monotonic() + DOWN_S

    async def ask(self, metadata: Sequence[tuple[str, str]]) -> None:
        """Learn how the replica does."""
        request: Any = inference_pb2.GetServerInfoRequest()
        try:
            info = await self.stub.GetServerInfo(
                request, metadata=tuple(metadata), timeout=ASK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            if error.code() in _SILENT:
                self._down_until_s = time.monotonic() + 2 * REFRESH_EVERY_S
            return
        self._name = info.replica or self.address
        self._is_draining = info.draining
        # Its own count has ours in it.
        self._num_others = max(0, info.queue_depth - self.num_running)
        self._resident = frozenset(info.resident)
        self._rejected = frozenset(info.rejected)
        self._down_until_s = 0.0

    def retire(self) -> None:
        """Close the channel when the last of its calls has ended."""
        self._is_retired = True
        if not self.num_running:
            self._close_later()

    def _close_later(self) -> None:
        self._closing = asyncio.ensure_future(self.close())

    async def close(self) -> None:
        await self._channel.close()


class Replicas:
    """All of them; ``close`` ends what runs for them."""

    def __init__(
        self,
        addresses: Sequence[str],
        metadata: Metadata,
        *,
        tls: Tls | None = None,
    ) -> None:
        if not addresses:
            raise ValueError("addresses: none given; expected host:port, or dns:///name:port")
        self._given = tuple(addresses)
        self._metadata = metadata
        self._tls = tls
        self._names = tuple(a for a in self._given if a.startswith(DNS_PREFIX))
        for name in self._names:
            host, _, port = name.removeprefix(DNS_PREFIX).rpartition(":")
            if not host or not port.isdecimal():
                raise ValueError(f"addresses: {name!r} names no port; expected dns:///name:port")
        self._by_address = {
            a: self._connect(a, "") for a in self._given if not a.startswith(DNS_PREFIX)
        }
        self._is_many = bool(self._names) or len(self._given) > 1
        self._watching: asyncio.Task[None] | None = None
        self._has_looked = asyncio.Event()
        self._hurry = asyncio.Event()

    async def ready(self) -> None:
        """Have looked at all of them once, where there is a choice."""
        if not self._is_many:
            return
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        await self._has_looked.wait()

    def pick(self, adapter_id: str, avoided: Collection[Connection] = ()) -> Connection | None:
        """Return the best replica for a request; one that is avoided only where all are."""
        by_name: dict[str, Connection] = {}
        views = []
        for connection in self._by_address.values():
            view = connection.view()
            if view.name in by_name:
                # Two addresses of one replica, or the address that it had before.
                view = routing.Replica(connection.address, is_down=view.is_down, load=view.load)
            by_name[view.name] = connection
            views.append(view)
        ordered = [by_name[v.name] for v in routing.order(adapter_id, views)]
        return next((c for c in ordered if c not in avoided), ordered[0] if ordered else None)

    def has_other(self, avoided: Collection[Connection]) -> bool:
        """Return whether there is a replica that was not tried and seems to be there."""
        return any(
            connection not in avoided and not view.is_down and not view.is_draining
            for connection in self._by_address.values()
            for view in (connection.view(),)
        )

    def note_trouble(self) -> None:
        """Look soon: something has changed."""
        self._hurry.set()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        connections, self._by_address = self._by_address, {}
        await asyncio.gather(*(c.close() for c in connections.values()))

    async def _watch(self) -> None:
        while True:
            await self._resolve()
            metadata = self._metadata()
            await asyncio.gather(*(c.ask(metadata) for c in self._by_address.values()))
            self._has_looked.set()
            await asyncio.sleep(MIN_REFRESH_GAP_S)
            self._hurry.clear()
            jitter = random.uniform(0.8, 1.2)  # noqa: S311 (no secret)
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_EVERY_S * jitter):
                    await self._hurry.wait()

    async def _resolve(self) -> None:
        """Follow the names to their addresses; a name that fails keeps those it had."""
        found = {a: "" for a in self._given if not a.startswith(DNS_PREFIX)}
        for name in self._names:
            authority = name.removeprefix(DNS_PREFIX)
            try:
                found |= dict.fromkeys(await _addresses(authority), authority)
            except OSError as error:
                log.warning("%s does not resolve: %s", authority, error)
                return
        for address in set(self._by_address) - set(found):
            self._by_address.pop(address).retire()
        for address, authority in found.items():
            if address not in self._by_address:
                self._by_address[address] = self._connect(address, authority)

    def _connect(self, address: str, host: str) -> Connection:
        return Connection(address, self._tls, host=host)


async def _addresses(authority: str) -> list[str]:
    """Return every address behind ``name:port``."""
    host, _, port = authority.rpartition(":")
    infos = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    ips = {str(where[0]) for *_, where in infos}
    return sorted(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in ips)
