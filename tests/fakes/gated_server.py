"""A gRPC server with the real gate and every method of the wire contract, but nothing behind it.

A request whose ``request_id`` is ``hang`` is answered when ``release`` is set, one that is ``fail``
never well; all others at once.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import message_factory
from grpc_health.v1 import health
from loraland_core.errors import NotFound
from loraland_core.keys import AdapterRecord
from loraland_core.rpc import admin_pb2, inference_pb2
from loraland_inference import auth, listening, statuses
from loraland_inference.adapters.registry import Registry
from loraland_inference.gate import Gate
from loraland_inference.limits import Limiter
from loraland_inference.metrics import Metrics
from loraland_inference.tls import Certificate
from loraland_inference.tokens import Tokens
from loraland_inference.tracing import Tracer
from prometheus_client import CollectorRegistry

SERVICES = (
    inference_pb2.DESCRIPTOR.services_by_name["Inference"],
    admin_pb2.DESCRIPTOR.services_by_name["Admin"],
)
METHODS = {f"/{m.containing_service.full_name}/{m.name}": m for s in SERVICES for m in s.methods}
USAGE = inference_pb2.Usage(prompt_tokens=30, completion_tokens=11)
TIMINGS = inference_pb2.Timings(queue_s=1.0, adapter_load_s=2.0, prefill_s=3.0, decode_s=5.0)


@dataclass
class Land:
    """What is behind the gate, and what became of it."""

    address: str = ""
    prometheus: CollectorRegistry = field(default_factory=CollectorRegistry)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    tenants: list[str] = field(default_factory=list)

    def value(self, name: str, **labels: str) -> float:
        return self.prometheus.get_sample_value(f"loraland_{name}", labels) or 0.0

    async def answer(self, method: str, request: Any, context: Any) -> Any:
        async with statuses.Answering(context):
            self.tenants.append(auth.caller().tenant)
            await self._behave(getattr(request, "request_id", ""))
            response = _message(METHODS[method].output_type)()
            if isinstance(response, inference_pb2.GenerateResponse):
                response.MergeFrom(inference_pb2.GenerateResponse(usage=USAGE, timings=TIMINGS))
            return response

    async def stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async with statuses.Answering(context):
            try:
                yield inference_pb2.GenerateStreamResponse(text="a", token_ids=[1])
                await self._behave(request.request_id)
                yield inference_pb2.GenerateStreamResponse(usage=USAGE, timings=TIMINGS)
            finally:
                self.closed.set()

    async def _behave(self, request_id: str) -> None:
        self.entered.set()
        if request_id == "hang":
            await self.release.wait()
        if request_id == "fail":
            raise NotFound("there is nothing")


def write_tokens(path: Path, tokens: dict[str, tuple[str, list[str]]], **document: Any) -> None:
    entries = [
        {"sha256": hashlib.sha256(t.encode()).hexdigest(), "tenant": tenant, "roles": roles}
        for t, (tenant, roles) in tokens.items()
    ]
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps({"schemaVersion": 1, "tokens": entries} | document))
    partial.rename(path)


@asynccontextmanager
async def serving(
    tokens: Path,
    *,
    certificate: Certificate | None = None,
    tracer: Tracer | None = None,
    max_deadline_s: float = 60.0,
) -> AsyncIterator[Land]:
    """Serve on a free port until the block ends."""
    land = Land()
    registry = Registry()
    registry.replace({"a/mine": _record("a"), "b/theirs": _record("b")}, 1)
    gate = Gate(
        tokens=Tokens(tokens),
        limiter=Limiter(time.monotonic),
        metrics=Metrics(land.prometheus),
        tracer=tracer or Tracer(),
        max_deadline_s=max_deadline_s,
        registry=registry,
    )
    server = listening.build_server(
        gate, {_add: land}, health.aio.HealthServicer(), max_requests=16
    )
    if certificate is None:
        land.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        port = server.add_secure_port("127.0.0.1:0", certificate.credentials())
        land.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield land
    finally:
        land.release.set()
        await server.stop(grace=None)


async def call(
    channel: grpc.aio.Channel, method: str, request: Any, token: str = "", **options: Any
) -> str:
    """Make a call of any method; return its status."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    descriptor = METHODS[method]
    kind = channel.unary_stream if descriptor.server_streaming else channel.unary_unary
    stub = kind(
        method,
        request_serializer=lambda r: r.SerializeToString(),
        response_deserializer=_message(descriptor.output_type).FromString,
    )
    made = stub(request, metadata=metadata, **({"timeout": 60} | options))
    try:
        if descriptor.server_streaming:
            async for _ in made:
                pass
        else:
            await made
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    finally:
        # A caller that is cancelled between two pieces would leave the call to the collector of
        # garbage otherwise.
        made.cancel()
    return "OK"


def build_request(method: str, **fields: Any) -> Any:
    """Return a request of a method, with those of the fields that it has."""
    kind = _message(METHODS[method].input_type)
    return kind(**{k: v for k, v in fields.items() if k in kind.DESCRIPTOR.fields_by_name})


def _message(descriptor: Any) -> Any:
    return message_factory.GetMessageClass(descriptor)


def _add(land: Land, server: grpc.aio.Server) -> None:
    for service in SERVICES:
        handlers = {
            m.name: _handler(land, f"/{service.full_name}/{m.name}") for m in service.methods
        }
        generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
        server.add_generic_rpc_handlers((generic,))


def _handler(land: Land, method: str) -> Any:
    descriptor = METHODS[method]
    coders = (
        _message(descriptor.input_type).FromString,
        lambda response: response.SerializeToString(),
    )
    if descriptor.server_streaming:
        return grpc.unary_stream_rpc_method_handler(land.stream, *coders)

    async def answer(request: Any, context: Any) -> Any:
        return await land.answer(method, request, context)

    return grpc.unary_unary_rpc_method_handler(answer, *coders)


def _record(tenant: str) -> AdapterRecord:
    return AdapterRecord(
        base_model="tiny", digest="0" * 64, uri="s3://b/p", size_bytes=1, rank=8, tenants=[tenant]
    )
