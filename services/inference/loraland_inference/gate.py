"""Where every call enters: who makes it, what they may do, how much of it, and for how long.

An interceptor around all methods, so that a new one cannot forget to ask. Health and reflection are
open to everyone: they tell nothing of adapters. What a call came to is counted here as well.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from loraland_core.errors import LoraLandError

from loraland_inference import auth, statuses, tracing
from loraland_inference.adapters.registry import Registry
from loraland_inference.failures import DeadlinePassed, OverQuota
from loraland_inference.limits import Limiter
from loraland_inference.metrics import Metrics
from loraland_inference.observation import GENERATING, Observation
from loraland_inference.tokens import Caller, Tokens
from loraland_inference.tracing import Tracer

_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.")
# The services whose calls count against a tenant's limits: Admin's are few, and undo a jam.
_LIMITED = "/loraland.inference.v1.Inference/"

Unary = Callable[[Any, Any], Awaitable[Any]]
Stream = Callable[[Any, Any], AsyncGenerator[Any, None]]


class Gate(grpc.aio.ServerInterceptor):
    """Lets a request pass with its caller set, or answers it itself."""

    def __init__(
        self,
        *,
        tokens: Tokens,
        limiter: Limiter,
        metrics: Metrics,
        tracer: Tracer,
        max_deadline_s: float,
        registry: Registry,
    ) -> None:
        self._tokens = tokens
        self._limiter = limiter
        self._metrics = metrics
        self._tracer = tracer
        self._max_deadline_s = max_deadline_s
        self._registry = registry

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = str(handler_call_details.method)
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(_OPEN):
            return handler
        coders = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary is not None:
            guarded = self._guard_unary(method, handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(guarded, *coders)
        assert handler.unary_stream is not None, f"nobody guards {method}"
        guarded_stream = self._guard_stream(method, handler.unary_stream)
        return grpc.unary_stream_rpc_method_handler(guarded_stream, *coders)

    def _guard_unary(self, method: str, answer: Unary) -> Unary:
        async def guarded(request: Any, context: Any) -> Any:
            async with self._entering(method, request, context) as observation:
                async with self._limited_in_time(context):
                    response = await answer(request, context)
                observation.add(response)
                return response

        return guarded

    def _guard_stream(self, method: str, answer: Stream) -> Stream:
        async def guarded(request: Any, context: Any) -> AsyncGenerator[Any, None]:
            async with (
                self._entering(method, request, context) as observation,
                # Closed with us, not when the last reference to it goes: its request ends then.
                aclosing(answer(request, context)) as pieces,
            ):
                # From the first piece on the engine itself watches the time.
                async with self._limited_in_time(context):
                    piece = await anext(pieces, None)
                if piece is not None:
                    observation.add(piece)
                    yield piece
                async for piece in pieces:
                    observation.add(piece)
                    yield piece

        return guarded

    @asynccontextmanager
    async def _entering(
        self, method: str, request: Any, context: Any
    ) -> AsyncIterator[Observation]:
        trace = self._tracer.begin(method, context.invocation_metadata())
        tracing.current.set(trace)
        observation = Observation(method, request, metrics=self._metrics, trace=trace)
        code = grpc.StatusCode.CANCELLED.name
        try:
            owner = auth.identify(
                self._tokens, context.invocation_metadata(), context.auth_context()
            )
            observation.identify(owner, self._may_use)
            auth.check_role(owner, method)
            auth.current.set(owner)
            if method.startswith(_LIMITED):
                generates = method in GENERATING
                with self._limiter.admitted(owner.tenant, owner.limits, generates=generates):
                    yield observation
            else:
                yield observation
            code = grpc.StatusCode.OK.name
        except LoraLandError as error:
            # What the services raise they answer themselves; this is the gate's own.
            code = statuses.code_of(error).name
            self._note_limit(observation, error)
            await statuses.abort(context, error)
        except grpc.aio.AbortError:
            code = _code_of(context)
            raise
        except Exception:
            code = grpc.StatusCode.UNKNOWN.name
            raise
        finally:
            self._metrics.requests.labels(method.rsplit("/", 1)[1], code).inc()
            num_tokens = observation.end(code)
            if num_tokens and observation.tenant:
                self._limiter.charge(observation.tenant, num_tokens)
            trace.end(code)

    def _may_use(self, caller: Caller, adapter_id: str) -> bool:
        """Whether an adapter exists, for all that is known, and is the caller's."""
        try:
            self._registry.find(adapter_id, lambda record: caller.may_use(record.tenants))
        except LoraLandError:
            return False
        return True

    def _note_limit(self, observation: Observation, error: LoraLandError) -> None:
        if isinstance(error, OverQuota):
            tenant = self._metrics.tenant_label(observation.tenant)
            self._metrics.limited.labels(tenant, error.reason).inc()

    @asynccontextmanager
    async def _limited_in_time(self, context: Any) -> AsyncIterator[None]:
        """Stop what takes longer than any call may, whatever deadline its caller has set."""
        remaining_s = context.time_remaining()
        limit_s = self._max_deadline_s
        if remaining_s is not None:
            limit_s = min(limit_s, max(0.0, remaining_s))
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError as error:
            raise DeadlinePassed(
                f"the call took longer than {limit_s:.0f} s; the work was stopped"
            ) from error


def _code_of(context: Any) -> str:
    """Return the status that a call was aborted with."""
    value = context.code()
    found = next((c for c in grpc.StatusCode if value in (c, c.value[0])), grpc.StatusCode.UNKNOWN)
    return found.name
