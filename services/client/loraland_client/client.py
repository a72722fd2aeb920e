"""The Python client of one replica: typed calls with a deadline, retried where that is safe.

async with Client("127.0.0.1:8500", token) as client:
answer = await client.generate("Where is my parcel?", adapter="default/support")
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack, cast

import grpc
from loraland_core.rpc import inference_pb2, inference_pb2_grpc

from loraland_client.failures import CallFailed, from_rpc_error

DEFAULT_TIMEOUT_S = 120.0
MAX_ATTEMPTS = 5
FIRST_DELAY_S = 0.2
MAX_DELAY_S = 10.0
PAGE_SIZE = 500
MAX_RECEIVE_BYTES = 16 * 1024 * 1024

R = TypeVar("R")


class Options(TypedDict, total=False):
    """Sampling parameters and the rest of a generation's options; all may be left out."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    stop: Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool


class Inputs(TypedDict, total=False):
    """What to answer; exactly one."""

    prompt: str | None
    fields: Mapping[str, str] | None
    messages: Sequence[Mapping[str, str]] | None
    token_ids: Sequence[int] | None


class Request(Inputs, Options, total=False):
    adapter: str
    request_id: str


@dataclass(frozen=True)
class Completion:
    """A whole reply, or a piece of one.

    Of a stream's pieces the last alone has a ``finish_reason`` (stop or length) and what follows it.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    digest: str = ""
    request_id: str = ""
    queue_s: float = 0.0
    adapter_load_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


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
        response = await self._call(self._stub.Generate, build_request(request), timeout_s)
        return _completion(response)

    async def stream(
        self, *, timeout_s: float | None = None, **request: Unpack[Request]
    ) -> AsyncIterator[Completion]:
        """Yield the reply while it is made; retried only before the first piece."""
        built = build_request(request)
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
                    yield _completion(response)
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
    ) -> list[float]:
        """Return the log-probability of each completion after the input."""
        request = inference_pb2.ScoreRequest(
            adapter=adapter, input=build_input(inputs), completions=completions
        )
        response = await self._call(self._stub.Score, request, timeout_s)
        return [score.logprob for score in response.scores]

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


def build_input(inputs: Inputs) -> inference_pb2.Input:
    """Return the request's input; ``TypeError`` for none or more than one."""
    given = {name: value for name, value in inputs.items() if value is not None}
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise TypeError(f"give one of prompt, fields, messages, token_ids; found {found}")
    if (prompt := inputs.get("prompt")) is not None:
        return inference_pb2.Input(prompt=prompt)
    if (fields := inputs.get("fields")) is not None:
        return inference_pb2.Input(fields=inference_pb2.Fields(values=dict(fields)))
    if (messages := inputs.get("messages")) is not None:
        chat = [inference_pb2.Message(role=m["role"], content=m["content"]) for m in messages]
        return inference_pb2.Input(messages=inference_pb2.Messages(messages=chat))
    return inference_pb2.Input(token_ids=inference_pb2.TokenIds(ids=inputs["token_ids"] or ()))


def build_request(request: Request) -> inference_pb2.GenerateRequest:
    names = Options.__optional_keys__
    sampling = {name: value for name, value in request.items() if name in names}
    inputs = {name: value for name, value in request.items() if name in Inputs.__optional_keys__}
    return inference_pb2.GenerateRequest(
        adapter=request.get("adapter", ""),
        input=build_input(cast("Inputs", inputs)),
        request_id=request.get("request_id", ""),
        sampling=inference_pb2.SamplingParams(**cast("Any", sampling)),
    )


def _completion(
    response: inference_pb2.GenerateResponse | inference_pb2.GenerateStreamResponse,
) -> Completion:
    if response.finish_reason == inference_pb2.FINISH_REASON_UNSPECIFIED:
        return Completion(response.text, tuple(response.token_ids))
    reason = inference_pb2.FinishReason.Name(response.finish_reason)
    return Completion(
        text=response.text,
        token_ids=tuple(response.token_ids),
        finish_reason=reason.removeprefix("FINISH_REASON_").lower(),
        prompt_tokens=response.usage.prompt_tokens,
        completion_tokens=response.usage.completion_tokens,
        digest=response.digest,
        request_id=response.request_id,
        queue_s=response.timings.queue_s,
        adapter_load_s=response.timings.adapter_load_s,
        prefill_s=response.timings.prefill_s,
        decode_s=response.timings.decode_s,
    )
