"""The client against a scripted server: what is retried, what is not, and what it sends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from loraland_client import CallFailed, Client
from loraland_client.wire import build_input, build_request
from loraland_core.rpc import inference_pb2 as pb
from loraland_core.rpc import inference_pb2_grpc

Code = grpc.StatusCode
LAST = pb.FINISH_REASON_STOP


class ScriptedServer(inference_pb2_grpc.InferenceServicer):
    """Answers each call with the next entry of its script: a status, or texts."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.metadata: list[dict[str, Any]] = []
        self.remaining_s: list[float] = []

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's name)
        step = await self._next(context)
        return pb.GenerateResponse(text="".join(step), finish_reason=LAST)

    async def GenerateStream(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's name)
        for text in await self._next(context):
            if isinstance(text, grpc.StatusCode):
                await context.abort(text, "broken")
            yield pb.GenerateStreamResponse(text=text)
        yield pb.GenerateStreamResponse(finish_reason=LAST, digest="d")

    async def ListAdapters(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's name)
        names, token = await self._next(context)
        return pb.ListAdaptersResponse(
            adapters=[pb.AdapterInfo(adapter=n) for n in names], next_page_token=token
        )

    async def _next(self, context: Any) -> Any:
        self.metadata.append(dict(context.invocation_metadata()))
        self.remaining_s.append(context.time_remaining())
        step = self.script.pop(0)
        if isinstance(step, grpc.StatusCode):
            await context.abort(step, "scripted")
        return step


@asynccontextmanager
async def connected(*script: Any, **options: Any) -> AsyncIterator[tuple[Client, ScriptedServer]]:
    servicer = ScriptedServer(*script)
    server = grpc.aio.server()
    inference_pb2_grpc.add_InferenceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Client(f"127.0.0.1:{port}", "secret", **options) as client:
            yield client, servicer
    finally:
        await server.stop(grace=None)


async def test_generate_is_retried_when_the_server_is_away_for_a_moment() -> None:
    """UNAVAILABLE and RESOURCE_EXHAUSTED are tried again; every try carries token and deadline."""
    async with connected(Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, ["hi"]) as (client, server):
        reply = await client.generate(prompt="x", timeout_s=30)

    assert (reply.text, reply.finish_reason) == ("hi", "stop")
    assert [m["authorization"] for m in server.metadata] == ["Bearer secret"] * 3
    assert all(0 < remaining_s < 31 for remaining_s in server.remaining_s)


@pytest.mark.parametrize("code", [Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNAUTHENTICATED])
async def test_generate_is_not_retried_when_that_cannot_help(code: grpc.StatusCode) -> None:
    """The caller's faults are told at once."""
    async with connected(code, ["never"]) as (client, server):
        with pytest.raises(CallFailed) as caught:
            await client.generate(prompt="x")

    assert (caught.value.code, len(server.script)) == (code, 1)


async def test_retries_end() -> None:
    """After the last attempt the failure is told."""
    async with connected(*[Code.UNAVAILABLE] * 3, max_attempts=2) as (client, server):
        with pytest.raises(CallFailed):
            await client.generate(prompt="x")

    assert len(server.script) == 1


async def test_retry_is_not_begun_when_the_deadline_would_pass() -> None:
    """The failure is told instead of a deadline that hides it."""
    async with connected(Code.UNAVAILABLE, ["late"]) as (client, _):
        with pytest.raises(CallFailed) as caught:
            await client.generate(prompt="x", timeout_s=0.1)

    assert caught.value.code == Code.UNAVAILABLE


async def test_stream_is_retried_only_before_its_first_piece() -> None:
    """Text that the caller has seen is never sent a second time."""
    script = [Code.UNAVAILABLE, ["a", "b"], ["a", Code.UNAVAILABLE], ["never"]]
    async with connected(*script) as (client, server):
        pieces = [p async for p in client.stream(prompt="x")]
        broken = client.stream(prompt="x")
        seen = (await anext(broken)).text
        with pytest.raises(CallFailed):
            await anext(broken)

    assert ([p.text for p in pieces], pieces[-1].digest) == (["a", "b", ""], "d")
    assert (seen, len(server.script)) == ("a", 1)


async def test_list_adapters_reads_all_pages() -> None:
    """Pages are the server's affair."""
    async with connected((["a", "b"], "b"), (["c"], "")) as (client, _):
        names = [a.adapter for a in await client.list_adapters()]

    assert names == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ({"prompt": "x"}, "prompt"),
        ({"prompt": None, "fields": {"a": "x"}}, "fields"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
        ({"token_ids": [1, 2]}, "token_ids"),
    ],
)
def test_input_has_the_kind_that_was_given(inputs: Any, kind: str) -> None:
    """None counts as not given."""
    assert build_input(inputs).WhichOneof("kind") == kind


@pytest.mark.parametrize("inputs", [{}, {"prompt": "x", "fields": {"a": "b"}}])
def test_input_is_refused_unless_it_is_exactly_one(inputs: Any) -> None:
    """A mistake in the program is told before anything is sent."""
    with pytest.raises(TypeError):
        build_input(inputs)


def test_request_carries_what_was_given_and_leaves_the_rest_to_the_server() -> None:
    """Absent parameters stay absent, so that the server's defaults hold."""
    request = build_request({"prompt": "x", "adapter": "ns/a", "seed": 0, "stop": ("END",)})

    sampling = request.sampling
    assert (request.adapter, sampling.seed, list(sampling.stop)) == ("ns/a", 0, ["END"])
    assert (sampling.HasField("seed"), sampling.HasField("top_p"), sampling.max_tokens) == (
        True, False, 0,
    )  # fmt: skip
