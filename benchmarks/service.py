"""Drives the service as callers do: one stream of the Python client for each request."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from loraland_client import Client
from measures import Row, Run
from workload import Request

TIMEOUT_S = 300.0
# Nothing that waits less for its adapter had to load it.
LOADED_S = 0.001


class CpuTime(NamedTuple):
    """What a service's processes have used so far, and those of them that are not the engine."""

    whole_s: float = 0.0
    front_s: float = 0.0


class Service:
    """Runs workloads against one address; ``cpu_s`` reads the CPU time that the service has used."""

    def __init__(
        self,
        address: str,
        token: str,
        adapter_ids: list[str],
        cpu_s: Callable[[], CpuTime] = CpuTime,
    ) -> None:
        self._address = address
        self._token = token
        self._adapter_ids = adapter_ids
        self._cpu_s = cpu_s

    def warm_up(self, requests: list[Request]) -> None:
        """Ask each adapter for a token, so that all are on the replica's disk."""
        asyncio.run(self._warm_up(sorted({r.adapter for r in requests if r.adapter is not None})))

    async def _warm_up(self, adapters: list[int]) -> None:
        async with Client(self._address, self._token, timeout_s=TIMEOUT_S) as client:
            for adapter in adapters:
                name = self._adapter_ids[adapter]
                await client.generate(token_ids=[1, 2, 3], adapter=name, max_tokens=1)

    def run(self, requests: list[Request], *, concurrency: int) -> Run:
        return asyncio.run(self._run(requests, concurrency))

    async def _run(self, requests: list[Request], concurrency: int) -> Run:
        is_open = any(r.arrival_s is not None for r in requests)
        places = asyncio.Semaphore(len(requests) if is_open else concurrency)
        async with Client(self._address, self._token, timeout_s=TIMEOUT_S) as client:
            await client.server_info()
            start_s, before = time.perf_counter(), self._cpu_s()
            rows = await asyncio.gather(
                *(self._ask(client, request, places, start_s) for request in requests)
            )
            wall_s = time.perf_counter() - start_s
        after = self._cpu_s()
        front_s = after.front_s - before.front_s
        return Run(list(rows), wall_s, after.whole_s - before.whole_s, front_s)

    async def _ask(
        self, client: Client, request: Request, places: asyncio.Semaphore, start_s: float
    ) -> Row:
        if request.arrival_s is not None:
            await asyncio.sleep(max(0.0, start_s + request.arrival_s - time.perf_counter()))
        async with places:
            asked_s = time.perf_counter() - start_s
            times: list[float] = []
            load_s = 0.0
            async for piece in client.stream(
                token_ids=request.token_ids,
                adapter="" if request.adapter is None else self._adapter_ids[request.adapter],
                max_tokens=request.output_tokens,
                ignore_eos=True,
            ):
                times += [time.perf_counter() - start_s] * len(piece.token_ids)
                load_s = max(load_s, piece.adapter_load_s)
        tier = "slot" if load_s < LOADED_S else "loaded"
        return Row(
            index=request.index,
            adapter=request.adapter,
            tier="base" if request.adapter is None else tier,
            input_tokens=len(request.token_ids),
            arrival_s=asked_s if request.arrival_s is None else request.arrival_s,
            token_times_s=times,
        )
