"""Traces by OpenTelemetry, sent over OTLP. The only place that imports it; wants the extra ``traces``."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from loraland_inference import tracing

# W3C allows more; nobody needs it.
MAX_HEADER_LENGTH = 512
EXPORT_TIMEOUT_S = 5
_HEADERS = ("traceparent", "tracestate")
# A caller's own mistakes are no errors of this server.
_CALLERS_FAULT = {
    grpc.StatusCode.OK.name,
    grpc.StatusCode.CANCELLED.name,
    grpc.StatusCode.INVALID_ARGUMENT.name,
    grpc.StatusCode.NOT_FOUND.name,
    grpc.StatusCode.UNAUTHENTICATED.name,
    grpc.StatusCode.PERMISSION_DENIED.name,
    grpc.StatusCode.FAILED_PRECONDITION.name,
}


class SpanTracer(tracing.Tracer):
    """Begins a server span for each call."""

    def __init__(
        self, processor: SpanProcessor, *, sample_ratio: float, resource: tracing.Attributes
    ) -> None:
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(sample_ratio),
            resource=Resource.create(dict(resource)),
            # The server ends it when its last call has ended, not when Python does.
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("loraland_inference")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, metadata: Any) -> tracing.CallTrace:
        carrier = {
            key: value
            for key, value in metadata or ()
            if key in _HEADERS and isinstance(value, str) and len(value) <= MAX_HEADER_LENGTH
        }
        service, _, name = method.removeprefix("/").partition("/")
        span = self._tracer.start_span(
            f"{service}/{name}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        return _SpanTrace(self._tracer, span) if span.is_recording() else tracing.CallTrace()

    def close(self) -> None:
        # A collector that does not answer must not keep the process.
        closing = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        closing.start()
        closing.join(EXPORT_TIMEOUT_S)


class _SpanTrace(tracing.CallTrace):
    """A call's server span; phases are its children, and events go to the innermost of them."""

    def __init__(self, tracer: Any, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._innermost = span

    def set(self, **attributes: str | int | float | bool) -> None:
        self._span.set_attributes({k.replace("__", "."): v for k, v in attributes.items()})

    def event(self, name: str, **attributes: str | int | float | bool) -> None:
        self._innermost.add_event(name, attributes)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        before = self._innermost
        span = self._child(name, time.time())
        self._innermost = span
        try:
            yield
        except Exception as error:
            # Its kind alone: a message may quote what the caller sent.
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            self._innermost = before
            span.end()

    def past_phase(self, name: str, started_s: float, ended_s: float) -> None:
        self._child(name, started_s).end(end_time=_nanoseconds(ended_s))

    def end(self, code: str) -> None:
        self._span.set_attribute("rpc.grpc.status_code", getattr(grpc.StatusCode, code).value[0])
        if code not in _CALLERS_FAULT:
            self._span.set_status(Status(StatusCode.ERROR, code))
        self._span.end()

    def _child(self, name: str, started_s: float) -> Span:
        return self._tracer.start_span(  # type: ignore[no-any-return]
            name, context=set_span_in_context(self._span), start_time=_nanoseconds(started_s)
        )


def build_exporting(
    endpoint: str, *, sample_ratio: float, resource: tracing.Attributes
) -> SpanTracer:
    """Return a tracer that sends to an OTLP endpoint over gRPC: ``http://host:port`` or https."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 (slow)
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 (slow)

    # A collector that is away costs spans, never requests: the queue is bounded and drops.
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
    processor = BatchSpanProcessor(exporter, export_timeout_millis=EXPORT_TIMEOUT_S * 1000)
    return SpanTracer(processor, sample_ratio=sample_ratio, resource=resource)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
