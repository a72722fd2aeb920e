"""The Python client: typed calls with a deadline, each to the replica that fits it best.

    async with Client("127.0.0.1:8500", token) as client:
        answer = await client.generate(prompt="Where is my parcel?", adapter="default/support")

Several replicas are a list of addresses, or ``dns:///name:port`` of a headless Service. A call that
fails where trying again is safe goes to another one.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from loraland_core.rpc import inference_pb2

from loraland_client import context, retries, wire
from loraland_client.channels import Tls
from loraland_client.failures import CallFailed, Details, from_rpc_error
from loraland_client.replicas import Connection, Replicas
from loraland_client.wire import Completion, Inputs, Request, Score

DEFAULT_TIMEOUT_S = 120.0
PAGE_SIZE = 500

R = TypeVar("R")


class Client:
    """A connection to the replicas of one base model; every call may raise ``CallFailed``.

    ``address`` is host:port, ``dns:///name:port``, or several of them.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        token: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_attempts: int = retries.MAX_ATTEMPTS,
        tls: Tls | None = None,
    ) -> None:
        self._token = token
        self._timeout_s = timeout_s
        self._max_attempts = max_attempts
        self._budget = retries.Budget()
        addresses = address.split(",") if isinstance(address, str) else address
        self._replicas = Replicas(addresses, self._metadata, tls=tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return context.build_metadata(self._token)

    async def close(self) -> None:
        await self._replicas.close()

    async def generate(
        self, *, timeout_s: float | None = None, **request: Unpack[Request]
    ) -> Completion:
        """Return the whole reply."""
        response = await self._call(
            lambda stub: stub.Generate, wire.build_request(request), timeout_s
        )
        return wire.read_completion(response)

    async def stream(
        self, *, timeout_s: float | None = None, **request: Unpack[Request]
    ) -> AsyncIterator[Completion]:
        """Yield the reply while it is made; retried only before the first piece."""
        built = wire.build_request(request)
        attempts = _Attempts(self, built.adapter, timeout_s)
        while True:
            connection = await attempts.next()
            has_begun = False
            try:
                with connection.busy():
                    call = connection.stub.GenerateStream(
                        built, metadata=self._metadata(), timeout=attempts.remaining_s
                    )
                    try:
                        async for response in call:
                            has_begun = True
                            yield wire.read_completion(response)
                    finally:
                        # Whoever stops reading wants no more of it; after the end it does nothing.
                        call.cancel()
            except grpc.aio.AioRpcError as error:
                failure = from_rpc_error(error)
                if has_begun:
                    raise failure from error
                await attempts.recover(failure)
            else:
                attempts.succeed()
                return

    async def list_adapters(self) -> list[inference_pb2.AdapterInfo]:
        """Return every adapter that this token may name."""
        found: list[inference_pb2.AdapterInfo] = []
        page_token = ""
        while True:
            request = inference_pb2.ListAdaptersRequest(page_size=PAGE_SIZE, page_token=page_token)
            response = await self._call(lambda stub: stub.ListAdapters, request, None)
            found += response.adapters
            page_token = response.next_page_token
            if not page_token:
                return found

    async def score(
        self,
        completions: Sequence[str],
        *,
        adapter: str = "",
        timeout_s: float | None = None,
        **inputs: Unpack[Inputs],
    ) -> list[Score]:
        """Return how likely each completion is after the input, in their order."""
        request = inference_pb2.ScoreRequest(
            adapter=adapter, input=wire.build_input(inputs), completions=completions
        )
        response = await self._call(lambda stub: stub.Score, request, timeout_s)
        return [wire.read_score(score) for score in response.scores]

    async def classify(
        self,
        labels: Sequence[str],
        *,
        adapter: str = "",
        timeout_s: float | None = None,
        **inputs: Unpack[Inputs],
    ) -> dict[str, float]:
        """Return each label's probability among these labels as the answer to the input.

        A label is compared as a whole, by the sum over its tokens; write it as the adapter was
        trained to, with the space before it if there is one.
        """
        scores = await self.score(labels, adapter=adapter, timeout_s=timeout_s, **inputs)
        most = max(score.logprob for score in scores)
        weights = [math.exp(score.logprob - most) for score in scores]
        return {label: w / sum(weights) for label, w in zip(labels, weights, strict=True)}

    async def server_info(self) -> inference_pb2.GetServerInfoResponse:
        """Return what one of the replicas says of itself."""
        return await self._call(
            lambda stub: stub.GetServerInfo, inference_pb2.GetServerInfoRequest(), None
        )

    async def _call(
        self,
        method: Callable[[Any], Callable[..., Awaitable[R]]],
        request: Any,
        timeout_s: float | None,
    ) -> R:
        attempts = _Attempts(self, getattr(request, "adapter", ""), timeout_s)
        while True:
            connection = await attempts.next()
            try:
                with connection.busy():
                    response = await method(connection.stub)(
                        request, metadata=self._metadata(), timeout=attempts.remaining_s
                    )
            except grpc.aio.AioRpcError as error:
                await attempts.recover(from_rpc_error(error))
            else:
                attempts.succeed()
                return response


class _Attempts:
    """The attempts of one call: where each goes, and whether there is another."""

    def __init__(self, client: Client, adapter_id: str, timeout_s: float | None) -> None:
        self._replicas = client._replicas
        self._budget = client._budget
        self._max_attempts = client._max_attempts
        self._adapter_id = adapter_id
        self._deadline_s = time.monotonic() + (timeout_s or client._timeout_s)
        self._num_made = 0
        self._avoided: set[Connection] = set()
        self._connection: Connection

    @property
    def remaining_s(self) -> float:
        return self._deadline_s - time.monotonic()

    async def next(self) -> Connection:
        """Return the replica for the next attempt."""
        await self._replicas.ready()
        connection = self._replicas.pick(self._adapter_id, self._avoided)
        while connection is None:
            # A name without addresses: its pods may just be starting.
            await self.recover(_nobody())
            connection = self._replicas.pick(self._adapter_id, self._avoided)
        if connection in self._avoided:
            # All were tried: the next round begins.
            self._avoided.clear()
        self._connection = connection
        return connection

    def succeed(self) -> None:
        self._budget.earn()
        if self._adapter_id:
            self._connection.note_answer(self._adapter_id)

    async def recover(self, failure: CallFailed) -> None:
        """Wait before the next attempt, or raise the failure if there shall be none."""
        self._num_made += 1
        is_absent = failure.code == grpc.StatusCode.UNAVAILABLE
        if hasattr(self, "_connection"):
            self._avoided.add(self._connection)
            if is_absent and failure.details.retry_after_s is None:
                # Not the replica's own words: nobody is there.
                self._connection.note_silence()
        if is_absent:
            self._replicas.note_trouble()
        if not failure.is_retriable or self._num_made >= self._max_attempts:
            raise failure
        delay_s = retries.delay_s(failure, self._num_made)
        if is_absent and self._replicas.has_other(self._avoided):
            delay_s = 0.0
        if delay_s >= self.remaining_s or not self._budget.spend():
            raise failure
        await asyncio.sleep(delay_s)


def _nobody() -> CallFailed:
    message = "the name resolves to no address; is a replica running?"
    return CallFailed(grpc.StatusCode.UNAVAILABLE, message, Details())
