"""The Python client of one replica: typed calls with a deadline, retried where that is safe.

async with Client("127.0.0.1:8500", token) as client:
answer = await client.generate("Where is my parcel?", adapter="default/support")
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from loraland_core.rpc import inference_pb2, inference_pb2_grpc

from loraland_client import wire
from loraland_client.failures import CallFailed, from_rpc_error
from loraland_client.wire import Completion, Inputs, Request, Score

DEFAULT_TIMEOUT_S = 120.0
MAX_ATTEMPTS = 5
FIRST_DELAY_S = 0.2
MAX_DELAY_S = 10.0
PAGE_SIZE = 500
MAX_RECEIVE_BYTES = 16 * 1024 * 1024

R = TypeVar("R")


class Client:
    """A connection to a replica; every call may raise ``CallFailed``."""

    def __init__(
        self,
        address: str,
        token: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._timeout_s = timeout_s
        self._max_attempts = max_attempts
        self._channel = grpc.aio.insecure_channel(
            address, options=[("grpc.max_receive_message_length", MAX_RECEIVE_BYTES)]
        )
        self._stub = inference_pb2_grpc.InferenceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def generate(
        self, *, timeout_s: float | None = None, **request: Unpack[Request]
    ) -> Completion:
        """Return the whole reply."""
        response = await self._call(self._stub.Generate, wire.build_request(request), timeout_s)
        return wire.read_completion(response)

    async def stream(
        self, *, timeout_s: float | None = None, **request: Unpack[Request]
    ) -> AsyncIterator[Completion]:
        """Yield the reply while it is made; retried only before the first piece."""
        built = wire.build_request(request)
        deadline_s = time.monotonic() + (timeout_s or self._timeout_s)
        attempt = 1
        while True:
            has_begun = False
            try:
                call = self._stub.GenerateStream(
                    built, metadata=self._metadata, timeout=deadline_s - time.monotonic()
                )
                async for response in call:
                    has_begun = True
                    yield wire.read_completion(response)
            except grpc.aio.AioRpcError as error:
                failure = from_rpc_error(error)
                if has_begun:
                    raise failure from error
                await self._pause(failure, attempt, deadline_s)
                attempt += 1
            else:
                return

    async def list_adapters(self) -> list[inference_pb2.AdapterInfo]:
        """Return every adapter that this token may name."""
        found: list[inference_pb2.AdapterInfo] = []
        page_token = ""
        while True:
            request = inference_pb2.ListAdaptersRequest(page_size=PAGE_SIZE, page_token=page_token)
            response = await self._call(self._stub.ListAdapters, request, None)
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
        response = await self._call(self._stub.Score, request, timeout_s)
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
        return await self._call(
            self._stub.GetServerInfo, inference_pb2.GetServerInfoRequest(), None
        )

    async def _call(
        self, method: Callable[..., Awaitable[R]], request: Any, timeout_s: float | None
    ) -> R:
        deadline_s = time.monotonic() + (timeout_s or self._timeout_s)
        attempt = 1
        while True:
            try:
                return await method(
                    request, metadata=self._metadata, timeout=deadline_s - time.monotonic()
                )
            except grpc.aio.AioRpcError as error:
                await self._pause(from_rpc_error(error), attempt, deadline_s)
                attempt += 1

    async def _pause(self, failure: CallFailed, attempt: int, deadline_s: float) -> None:
        """Wait before the next attempt, or raise the failure if there shall be none."""
        exponential_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1))
        delay_s = max(exponential_s, min(MAX_DELAY_S, failure.details.retry_after_s or 0.0))
        delay_s *= random.uniform(1.0, 1.5)  # noqa: S311 (jitter)
        is_late = time.monotonic() + delay_s >= deadline_s
        if not failure.is_retriable or attempt >= self._max_attempts or is_late:
            raise failure
        await asyncio.sleep(delay_s)
