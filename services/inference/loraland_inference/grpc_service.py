"""The Inference service: protobuf in, engine messages out, and back. Policy lies elsewhere."""

import math
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from loraland_core import keys
from loraland_core.errors import InvalidInput, LoraLandError, Unavailable
from loraland_core.rpc import inference_pb2, inference_pb2_grpc

from loraland_inference import auth, messages, replies, requests, sampling, statuses, tracing
from loraland_inference.adapters.coordinator import Coordinator
from loraland_inference.adapters.lease import Lease
from loraland_inference.engine_client import EngineClient, EngineInfo, Ticket
from loraland_inference.failures import DeadlinePassed, InternalFault
from loraland_inference.messages import Message, Output
from loraland_inference.replies import Reply
from loraland_inference.server_state import ServerState

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100


@dataclass
class _Call:
    """What is known of a request beside its outputs."""

    ticket: Ticket
    reply: Reply
    spend: Callable[[int], None]


class InferenceService(inference_pb2_grpc.InferenceServicer):
    """Generation, scoring and what a caller may know of this replica."""

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        engine: EngineClient,
        state: ServerState,
        max_deadline_s: float,
    ) -> None:
        self._coordinator = coordinator
        self._engine = engine
        self._state = state
        self._max_deadline_s = max_deadline_s

    async def Generate(  # noqa: N802 (gRPC's name)
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> inference_pb2.GenerateResponse:
        async with statuses.Answering(context):
            async with self._generating(request, context) as call:
                async for output in self._outputs(call):
                    call.reply.add(output)
            return call.reply.build_whole()

    async def GenerateStream(  # noqa: N802 (gRPC's name)
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[inference_pb2.GenerateStreamResponse]:
        async with (
            statuses.Answering(context),
            self._generating(request, context) as call,
        ):
            async for output in self._outputs(call):
                piece = call.reply.build_piece(output)
                if piece is not None:
                    yield piece

    async def Score(  # noqa: N802 (gRPC's name)
        self, request: inference_pb2.ScoreRequest, context: Any
    ) -> inference_pb2.ScoreResponse:
        async with statuses.Answering(context):
            limits = self._limits()
            render = requests.check_input(request.input, limits)
            completions = requests.check_completions(list(request.completions))
            requests.check_request_id(request.request_id)
            async with self._leased(request.adapter) as lease:
                message = self._message("score", lease, context)
                message |= {"input": render(lease.prompt), "completions": completions}
                scores = await self._score(message, len(completions))
            return inference_pb2.ScoreResponse(scores=scores, digest=lease.digest)

    async def Tokenize(  # noqa: N802 (gRPC's name)
        self, request: inference_pb2.TokenizeRequest, context: Any
    ) -> inference_pb2.TokenizeResponse:
        async with statuses.Answering(context):
            render = requests.check_input(request.input, self._limits())
            async with self._leased(request.adapter) as lease:
                token_ids = await self._engine.tokenize(render(lease.prompt))
            return inference_pb2.TokenizeResponse(token_ids=token_ids)

    async def ListAdapters(  # noqa: N802 (gRPC's name)
        self, request: inference_pb2.ListAdaptersRequest, context: Any
    ) -> inference_pb2.ListAdaptersResponse:
        async with statuses.Answering(context):
            caller = auth.caller()
            visible = sorted(
                (adapter_id, record)
                for adapter_id, record in self._coordinator.registry.records.items()
                if caller.may_use(record.tenants) and adapter_id > request.page_token
            )
            size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
            page = visible[:size]
            return inference_pb2.ListAdaptersResponse(
                adapters=[self._describe(adapter_id, record) for adapter_id, record in page],
                next_page_token=page[-1][0] if len(visible) > size else "",
            )

    async def GetServerInfo(  # noqa: N802 (gRPC's name)
        self, _: inference_pb2.GetServerInfoRequest, context: Any
    ) -> inference_pb2.GetServerInfoResponse:
        async with statuses.Answering(context):
            info = self._info()
            return inference_pb2.GetServerInfoResponse(
                base_model=self._state.base_model,
                resolved_revision=info.resolved_revision,
                precision=info.precision,
                max_context_tokens=info.context_tokens,
                max_rank=self._state.max_rank,
                num_slots=self._coordinator.slots.num_slots,
                num_free_slots=self._coordinator.slots.num_free,
                queue_depth=self._state.num_requests,
                default_max_tokens=sampling.DEFAULT_MAX_TOKENS,
                version=self._state.version,
                registry_known=self._coordinator.registry.is_known,
                replica=self._state.replica,
                draining=self._state.is_draining,
                resident=self._visible(set(self._coordinator.slots.loaded)),
                rejected=self._visible_rejections(),
            )

    def _visible(self, digests: set[str]) -> list[str]:
        """Return the adapters with these digests that the caller may name."""
        records = self._coordinator.registry.records
        may_use = auth.caller().may_use
        return [i for i, r in records.items() if r.digest in digests and may_use(r.tenants)]

    def _visible_rejections(self) -> list[str]:
        records = self._coordinator.registry.records
        may_use = auth.caller().may_use
        return [i for i in self._coordinator.registry.rejections() if may_use(records[i].tenants)]

    @asynccontextmanager
    async def _generating(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[_Call]:
        """Start a generation and stop it when its caller is gone."""
        limits = self._limits()
        render = requests.check_input(request.input, limits)
        params = sampling.build_params(request.sampling, limits)
        options = {"params": params, "grammar": sampling.build_grammar(request.sampling)}
        request_id = requests.check_request_id(request.request_id) or uuid.uuid4().hex
        requests.check_adapter_id(request.adapter)
        with self._state.admitted(request.adapter):
            lease = await self._acquire(request.adapter, params["max_tokens"] * params["n"])
            ticket = self._start(lease, context, options, render)
            try:
                reply = Reply(
                    num_completions=params["n"],
                    request_id=request_id,
                    digest=lease.digest,
                    load_s=lease.load_s,
                    tier=lease.tier,
                )
                yield _Call(ticket, reply, lease.spend)
            finally:
                self._engine.cancel(ticket)

    def _start(self, lease: Lease, context: Any, options: Message, render: Any) -> Ticket:
        """Hand a generation to the engine; the lease is given back when the engine has ended it."""
        try:
            message = self._message("generate", lease, context)
            message |= options | {"input": render(lease.prompt)}
        except LoraLandError:
            lease.release()
            raise
        return self._engine.generate(
            message, on_end=lease.release, num_completions=options["params"]["n"]
        )

    async def _outputs(self, call: _Call) -> AsyncIterator[Output]:
        """Yield what the engine says, to the last; raise what ended it otherwise."""
        while not call.reply.is_complete:
            output = await _next(call.ticket)
            call.spend(len(output["token_ids"]))
            yield output

    async def _score(self, message: Message, count: int) -> list[inference_pb2.CompletionScore]:
        ticket = self._engine.generate(message, on_end=lambda: None, num_completions=count)
        try:
            outputs = [await _next(ticket) for _ in range(count)]
        finally:
            self._engine.cancel(ticket)
            # The lease outlives the scoring: its slot must not be taken while the engine reads it.
            await ticket.ended.wait()
        outputs.sort(key=lambda output: output["index"])
        return [replies.build_score(output) for output in outputs]

    @asynccontextmanager
    async def _leased(self, adapter: str) -> AsyncIterator[Lease]:
        """Hold an adapter for as long as its caller works with it."""
        requests.check_adapter_id(adapter)
        with self._state.admitted(adapter):
            lease = await self._acquire(adapter)
            try:
                yield lease
            finally:
                lease.release()

    async def _acquire(self, adapter: str, num_tokens: int = 0) -> Lease:
        with tracing.call().phase("load"):
            return await self._coordinator.acquire(
                adapter,
                lambda record: auth.caller().may_use(record.tenants),
                num_tokens=num_tokens,
            )

    def _message(self, kind: str, lease: Lease, context: Any) -> Message:
        remaining_s = context.time_remaining()
        owner = auth.caller()
        return {
            "type": kind,
            "adapter": lease.digest,
            "caller": messages.Caller(
                tenant=owner.tenant, weight=owner.weight, priority=lease.priority
            ),
            "deadline_in_s": min(
                self._max_deadline_s, math.inf if remaining_s is None else remaining_s
            ),
        }

    def _info(self) -> EngineInfo:
        if self._engine.info is None:
            raise Unavailable("the base model is still being loaded", retry_after_s=5.0)
        return self._engine.info

    def _limits(self) -> requests.ModelLimits:
        info = self._info()
        return requests.ModelLimits(info.context_tokens, info.vocabulary_size)

    def _describe(self, adapter_id: str, record: keys.AdapterRecord) -> inference_pb2.AdapterInfo:
        rejection = self._coordinator.registry.rejection(adapter_id)
        return inference_pb2.AdapterInfo(
            adapter=adapter_id,
            digest=record.digest,
            rank=record.rank,
            size_bytes=record.size_bytes,
            pinned=record.pinned or record.digest in self._coordinator.slots.pinned,
            tier=replies.TIERS[self._coordinator.tier(record.digest)],
            rejected=f"{rejection.reason}: {rejection.message}" if rejection else "",
        )


async def _next(ticket: Ticket) -> Output:
    """Return what the engine says next; raise what ended the request instead."""
    output = await ticket.outputs.get()
    if isinstance(output, LoraLandError):
        raise output
    match output.get("finish"):
        case "deadline" | "cancelled":
            raise DeadlinePassed("the deadline passed; the work was stopped")
        case "refused":
            raise InvalidInput(output["error"], field="sampling.constraint")
        case "failed":
            raise InternalFault(ticket.id)
    return output
