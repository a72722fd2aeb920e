"""The gate: nobody passes without a name and a role, nobody takes more than their share."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gated_server
import grpc
import pytest
from gated_server import METHODS, Land, build_request, call
from loraland_client.failures import from_rpc_error
from loraland_core.rpc import inference_pb2, inference_pb2_grpc
from waiting import until

GENERATE, STREAM, SCORE = (
    f"/loraland.inference.v1.Inference/{m}" for m in ("Generate", "GenerateStream", "Score")
)
LIMITS = {
    "one": {"maxConcurrentRequests": 1},
    "slow": {"tokensPerSecond": 0.001, "burstSeconds": 1000},
    "rare": {"requestsPerSecond": 0.001, "burstSeconds": 1},
}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Tenant a calls, an operator administers, a stranger may do nothing; others have limits."""
    path = tmp_path / "tokens.json"
    both = ["inference", "admin"]
    entries = {"of-a": ("a", ["inference"]), "of-op": ("op", both), "of-nobody": ("x", [])}
    entries |= {f"of-{tenant}": (tenant, ["inference"]) for tenant in LIMITS}
    gated_server.write_tokens(path, entries, limits=LIMITS)
    return path


@pytest.fixture
async def land(tokens: Path) -> AsyncIterator[Land]:
    async with gated_server.serving(tokens) as served:
        yield served


@pytest.fixture
async def channel(land: Land) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(land.address) as opened:
        yield opened


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.rsplit(".", 1)[1])
async def test_every_method_asks_who_calls_and_what_they_may(
    channel: grpc.aio.Channel, land: Land, method: str
) -> None:
    """Whatever the contract has now or later: no token, no role, no answer."""
    request = build_request(method, adapter="a/mine")
    tokens = ["", "wrong", "of-nobody", "of-op"]

    found = [await call(channel, method, request, token) for token in tokens]

    assert found == ["UNAUTHENTICATED", "UNAUTHENTICATED", "PERMISSION_DENIED", "OK"]
    assert set(land.tenants) <= {"op"}


@pytest.mark.parametrize(
    "method", [m for m in METHODS if ".Admin/" in m], ids=lambda m: m.rsplit("/", 1)[1]
)
async def test_caller_without_the_admin_role_administers_nothing(
    channel: grpc.aio.Channel, method: str
) -> None:
    """The role of inference is not enough."""
    assert await call(channel, method, build_request(method), "of-a") == "PERMISSION_DENIED"


async def test_tenant_over_its_concurrency_hears_when_to_come_back(
    channel: grpc.aio.Channel, land: Land
) -> None:
    """Others go on; the delay and the limit are details that a program can read."""
    hanging = asyncio.create_task(
        call(channel, GENERATE, build_request(GENERATE, request_id="hang"), "of-one")
    )
    await asyncio.wait_for(land.entered.wait(), 60)
    stub = inference_pb2_grpc.InferenceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetServerInfo(
            inference_pb2.GetServerInfoRequest(),
            metadata=(("authorization", "Bearer of-one"),),
            timeout=60,
        )
    other = await call(channel, GENERATE, build_request(GENERATE), "of-a")
    land.release.set()

    failure = from_rpc_error(caught.value)
    assert failure.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (failure.details.reason, failure.details.retry_after_s) == ("ConcurrencyLimit", 1.0)
    assert (other, await hanging) == ("OK", "OK")
    assert land.value("tenant_limited_requests_total", tenant="one", limit="ConcurrencyLimit") == 1


@pytest.mark.parametrize(
    ("token", "after_one", "admin"),
    [("of-rare", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED"), ("of-op", "OK", "OK")],
    ids=["limited", "unlimited"],
)
async def test_requests_a_second_are_limited_where_a_tenant_has_a_limit(
    channel: grpc.aio.Channel, token: str, after_one: str, admin: str
) -> None:
    """Of all methods together, but never of Admin's."""
    drain = "/loraland.inference.v1.Admin/Drain"
    found = [
        await call(channel, GENERATE, build_request(GENERATE), token),
        await call(channel, SCORE, build_request(SCORE), token),
        await call(channel, drain, build_request(drain), token),
    ]

    assert found == ["OK", after_one, admin]


async def test_tokens_are_charged_for_what_was_made(channel: grpc.aio.Channel, land: Land) -> None:
    """Forty-one tokens against a bucket of one: the next generation waits, a listing does not."""
    listing = "/loraland.inference.v1.Inference/ListAdapters"
    found = [
        await call(channel, m, build_request(m), "of-slow") for m in (STREAM, GENERATE, listing)
    ]

    assert found == ["OK", "RESOURCE_EXHAUSTED", "OK"]
    assert land.value("tenant_tokens_total", tenant="slow") == 41


@pytest.mark.parametrize(
    ("method", "cost"), [(GENERATE, 200 + 3 * 50), (STREAM, 200 + 1), (SCORE, 200 + 5)]
)
async def test_giving_up_is_not_a_way_to_compute_for_nothing(
    channel: grpc.aio.Channel, land: Land, method: str, cost: int
) -> None:
    """What nobody counted is charged as what it could have come to; its work has ended."""
    given = inference_pb2.Input(token_ids=inference_pb2.TokenIds(ids=[1] * 200))
    sampling = inference_pb2.SamplingParams(max_tokens=50, n=3)
    request = build_request(
        method, input=given, sampling=sampling, request_id="hang", completions=["x" * 20]
    )
    task = asyncio.create_task(call(channel, method, request, "of-a"))
    await asyncio.wait_for(land.entered.wait(), 60)
    task.cancel()

    await until(lambda: land.value("tenant_tokens_total", tenant="a") == cost)
    name = method.rsplit("/", 1)[1]
    assert land.value("requests_total", method=name, code="CANCELLED") == 1
    if method == STREAM:
        await asyncio.wait_for(land.closed.wait(), 60)


@pytest.mark.parametrize("method", [GENERATE, SCORE])
async def test_no_call_lasts_longer_than_any_may(tokens: Path, method: str) -> None:
    """A caller without a deadline gets one."""
    async with (
        gated_server.serving(tokens, max_deadline_s=0.2) as land,
        grpc.aio.insecure_channel(land.address) as channel,
    ):
        request = build_request(method, request_id="hang")
        found = await call(channel, method, request, "of-a", timeout=None)

        name = method.rsplit("/", 1)[1]
        assert found == "DEADLINE_EXCEEDED"
        assert land.value("requests_total", method=name, code="DEADLINE_EXCEEDED") == 1


@pytest.mark.parametrize(
    ("adapter", "label"),
    [("a/mine", "a/mine"), ("b/theirs", "other"), ("a/absent", "other"), ("", "base")],
    ids=["own", "hidden", "absent", "base"],
)
async def test_adapter_is_a_label_only_where_the_caller_may_name_it(
    channel: grpc.aio.Channel, land: Land, adapter: str, label: str
) -> None:
    """Nobody fills Prometheus with names of their invention."""
    for method in (GENERATE, STREAM):
        await call(channel, method, build_request(method, adapter=adapter), "of-a")

    assert land.value("adapter_requests_total", adapter=label, code="OK") == 2
    assert land.value("output_tokens_total", adapter=label) == 22
    assert land.value("ttft_seconds_count", adapter=label) == 2
    assert land.value("tpot_seconds_sum", adapter=label) == 1.0
    assert land.value("queue_seconds_sum") == 2.0


async def test_failed_calls_are_counted_by_their_code(
    channel: grpc.aio.Channel, land: Land
) -> None:
    """Whoever ends them: the gate, or what is behind it."""
    request = build_request(GENERATE, request_id="fail", adapter="a/mine")
    for token in ("of-a", "of-nobody", ""):
        await call(channel, GENERATE, request, token)

    codes = ["NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED"]
    found = [land.value("requests_total", method="Generate", code=code) for code in codes]
    assert found == [1, 1, 1]
    assert land.value("tenant_requests_total", tenant="a", code="NOT_FOUND") == 1
    assert land.value("tenant_tokens_total", tenant="a") == 0


async def test_token_that_is_taken_out_is_refused_at_the_next_call(
    channel: grpc.aio.Channel, tokens: Path
) -> None:
    """On a connection that is open already; a token that is put in counts at once."""
    request = build_request(GENERATE)
    before = [await call(channel, GENERATE, request, t) for t in ("of-a", "new")]
    gated_server.write_tokens(tokens, {"new": ("a", ["inference"])})

    after = [await call(channel, GENERATE, request, t) for t in ("of-a", "new")]
    assert (before, after) == (["OK", "UNAUTHENTICATED"], ["UNAUTHENTICATED", "OK"])


@pytest.mark.parametrize(
    "options",
    [{"metadata": (("x-large", "x" * 70_000),)}, {"request": "large"}],
    ids=["metadata", "message"],
)
async def test_what_a_caller_sends_is_bounded(
    channel: grpc.aio.Channel, land: Land, options: dict[str, Any]
) -> None:
    """Sixteen KiB beside a message, a MiB in it; nothing behind the gate sees more."""
    stub = inference_pb2_grpc.InferenceStub(channel)
    prompt = "x" * 2_000_000 if "request" in options else "x"
    metadata = (("authorization", "Bearer of-a"), *options.get("metadata", ()))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(
            inference_pb2.GenerateRequest(input=inference_pb2.Input(prompt=prompt)),
            metadata=metadata,
            timeout=60,
        )

    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert land.tenants == []


async def test_no_token_is_ever_logged(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a good one nor a bad one, however much is logged."""
    with caplog.at_level(logging.DEBUG):
        for token in ("of-a", "of-nobody", "a-wrong-secret"):
            for request_id in ("", "fail"):
                request = build_request(GENERATE, request_id=request_id)
                await call(channel, GENERATE, request, token)

    assert [s for s in ("of-a", "of-nobody", "a-wrong-secret") if s in caplog.text] == []
