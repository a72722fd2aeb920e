"""Traces: a call's spans below its caller's, and nothing secret in them."""

from collections.abc import AsyncIterator
from pathlib import Path

import gated_server
import grpc
import pytest
from gated_server import Land, build_request, call
from loraland_core.rpc import inference_pb2, inference_pb2_grpc
from loraland_inference import tracing
from loraland_inference.spans import SpanTracer
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

GENERATE = "/loraland.inference.v1.Inference/Generate"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> SpanTracer:
    return build(exporter)


def build(exporter: InMemorySpanExporter, sample_ratio: float = 1.0) -> SpanTracer:
    resource: tracing.Attributes = {"service.name": "loraland-inference"}
    return SpanTracer(SimpleSpanProcessor(exporter), sample_ratio=sample_ratio, resource=resource)


@pytest.fixture
async def land(tmp_path: Path, tracer: SpanTracer) -> AsyncIterator[Land]:
    tokens = tmp_path / "tokens.json"
    gated_server.write_tokens(tokens, {"secret": ("a", ["inference"])})
    async with gated_server.serving(tokens, tracer=tracer) as served:
        yield served


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name.rsplit("/", 1)[-1]: span for span in exporter.get_finished_spans()}


def length_s(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return round((span.end_time - span.start_time) / 1e9, 3)


async def generate(land: Land, *metadata: tuple[str, str], **fields: str) -> None:
    async with grpc.aio.insecure_channel(land.address) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        request = inference_pb2.GenerateRequest(
            input=inference_pb2.Input(prompt="a private question"), **fields
        )
        await stub.Generate(request, metadata=metadata, timeout=60)


async def test_call_is_a_child_of_its_callers_span_and_has_the_engines_phases(
    land: Land, exporter: InMemorySpanExporter
) -> None:
    """Queue, prefill and decode, one after the other, as long as the engine said."""
    await generate(
        land,
        ("authorization", "Bearer secret"),
        ("traceparent", TRACEPARENT),
        adapter="a/mine",
    )
    spans = by_name(exporter)
    root = spans["Generate"]

    assert root.parent is not None
    assert (f"{root.parent.trace_id:032x}", f"{root.parent.span_id:016x}") == (TRACE, PARENT)
    lengths = {name: length_s(spans[name]) for name in ("queue", "prefill", "decode")}
    assert lengths == {"queue": 1.0, "prefill": 3.0, "decode": 5.0}
    assert spans["queue"].end_time == spans["prefill"].start_time
    assert spans["prefill"].end_time == spans["decode"].start_time
    parents = {span.parent.span_id for n, span in spans.items() if n != "Generate" and span.parent}
    assert root.context is not None
    assert parents == {root.context.span_id}


async def test_span_says_what_the_call_was_and_no_secrets(
    land: Land, exporter: InMemorySpanExporter
) -> None:
    """Tenant, adapter, tokens and status; neither the token nor the prompt."""
    await generate(land, ("authorization", "Bearer secret"), adapter="a/mine")
    root = by_name(exporter)["Generate"]

    attributes = dict(root.attributes or {})
    expected = {
        "rpc.system": "grpc",
        "rpc.service": "loraland.inference.v1.Inference",
        "rpc.method": "Generate",
        "rpc.grpc.status_code": 0,
        "loraland.tenant": "a",
        "loraland.adapter": "a/mine",
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 11,
    }
    assert attributes.items() >= expected.items()
    said = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert ("secret" in said, "private" in said) == (False, False)


@pytest.mark.parametrize(
    ("token", "request_id", "code"),
    [("secret", "fail", 5), ("wrong", "", 16), ("secret", "", 0)],
    ids=["not-found", "unauthenticated", "ok"],
)
async def test_callers_own_mistakes_are_no_errors_of_the_server(
    land: Land,
    exporter: InMemorySpanExporter,
    token: str,
    request_id: str,
    code: int,
) -> None:
    """The code is told; the span is not red."""
    async with grpc.aio.insecure_channel(land.address) as channel:
        await call(channel, GENERATE, build_request(GENERATE, request_id=request_id), token)
    root = by_name(exporter)["Generate"]

    assert (root.attributes or {})["rpc.grpc.status_code"] == code
    assert root.status.status_code == StatusCode.UNSET


@pytest.mark.parametrize("header", ["nonsense", "00-" + "f" * 5000], ids=["malformed", "long"])
async def test_senseless_trace_context_begins_a_trace_of_its_own(
    land: Land, exporter: InMemorySpanExporter, header: str
) -> None:
    """A caller's mistake in tracing is not worth an answer."""
    await generate(land, ("authorization", "Bearer secret"), ("traceparent", header))

    assert by_name(exporter)["Generate"].parent is None


def test_phase_takes_events_and_tells_its_failure_by_kind(
    tracer: SpanTracer, exporter: InMemorySpanExporter
) -> None:
    """What happens during a load belongs to the load."""
    trace = tracer.begin(GENERATE, ())

    def load() -> None:
        with trace.phase("load"):
            trace.event("found", tier="disk")
            raise ValueError("a prompt")

    with pytest.raises(ValueError, match="a prompt"):
        load()
    trace.end("UNAVAILABLE")
    spans = by_name(exporter)

    assert [e.name for e in spans["load"].events] == ["found"]
    assert spans["load"].status.description == "ValueError"
    assert spans["Generate"].status.status_code == StatusCode.ERROR


def test_calls_that_are_not_sampled_cost_nothing() -> None:
    """Neither a span nor a phase is made; a caller that samples decides for itself."""
    exporter = InMemorySpanExporter()
    tracer = build(exporter, sample_ratio=0.0)
    tracer.begin(GENERATE, ()).end("OK")
    tracer.begin(GENERATE, (("traceparent", TRACEPARENT),)).end("OK")
    tracer.close()

    assert [f"{s.context.trace_id:032x}" for s in exporter.get_finished_spans() if s.context] == [
        TRACE
    ]
