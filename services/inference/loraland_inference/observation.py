"""What one call came to, read off its request and its responses: metrics, trace, and its cost. No I/O."""

import math
import time
from collections.abc import Callable
from typing import Any

import grpc
from loraland_core.rpc import inference_pb2

from loraland_inference.metrics import Metrics
from loraland_inference.sampling import DEFAULT_MAX_TOKENS
from loraland_inference.tokens import Caller
from loraland_inference.top_labels import OTHER
from loraland_inference.tracing import CallTrace

_SERVICE = "/loraland.inference.v1.Inference/"
# What makes the engine compute, and so costs tokens.
GENERATING = (f"{_SERVICE}Generate", f"{_SERVICE}GenerateStream", f"{_SERVICE}Score")
# Of text whose tokens nobody has counted: about as many bytes make one.
BYTES_PER_TOKEN = 4
_OK = grpc.StatusCode.OK.name
# The caller gave up while the engine was at work.
_GIVEN_UP = (grpc.StatusCode.CANCELLED.name, grpc.StatusCode.DEADLINE_EXCEEDED.name)


class Observation:
    """Follows one call from the gate on; ``end`` exactly once."""

    def __init__(self, method: str, request: Any, *, metrics: Metrics, trace: CallTrace) -> None:
        self._method = method
        self._request = request
        self._metrics = metrics
        self._trace = trace
        self._started_s = time.monotonic()
        self._first_s: float | None = None
        self._last: Any = None
        self._num_output_tokens = 0
        self._adapter: str | None = None
        self.tenant = ""

    def identify(self, owner: Caller, may_use: Callable[[Caller, str], bool]) -> None:
        """Note who calls, and which adapter; one that is not theirs to use has no name here."""
        self.tenant = owner.tenant
        self._trace.set(loraland__tenant=owner.tenant)
        adapter = getattr(self._request, "adapter", None)
        if adapter is None:
            return
        is_known = not adapter or may_use(owner, adapter)
        self._adapter = self._metrics.adapter_label(adapter) if is_known else OTHER
        if is_known:
            self._trace.set(loraland__adapter=adapter)

    def add(self, response: Any) -> None:
        """Note a response, or a piece of one."""
        if self._first_s is None:
            self._first_s = time.monotonic()
            self._trace.event("first response")
        self._last = response
        if self._method == GENERATING[1]:
            self._num_output_tokens += len(response.token_ids)

    def end(self, code: str) -> int:
        """Count the call; return how many tokens it has cost its tenant."""
        if self.tenant:
            tenant = self._metrics.tenant_label(self.tenant)
            self._metrics.tenant_requests.labels(tenant, code).inc()
        if self._adapter is not None:
            self._metrics.adapter_requests.labels(self._adapter, code).inc()
        if code == _OK and self._method in GENERATING[:2]:
            self._count_generation()
        num_tokens = self._cost(code)
        if num_tokens:
            self._metrics.tenant_tokens.labels(self._metrics.tenant_label(self.tenant)).inc(
                num_tokens
            )
        return num_tokens

    def _count_generation(self) -> None:
        usage, timings = self._last.usage, self._last.timings
        adapter = self._adapter or OTHER
        metrics = self._metrics
        metrics.prompt_tokens.labels(adapter).inc(usage.prompt_tokens)
        metrics.cached_prompt_tokens.labels(adapter).inc(usage.cached_prompt_tokens)
        metrics.output_tokens.labels(adapter).inc(usage.completion_tokens)
        metrics.queue.observe(timings.queue_s)
        metrics.prefill.observe(timings.prefill_s)
        if timings.adapter_tier:
            metrics.adapter_load.labels(_tier(timings)).observe(timings.adapter_load_s)
        metrics.ttft.labels(adapter).observe(self._ttft_s(timings))
        num_completions = max(1, self._request.sampling.n)
        if (num_more := usage.completion_tokens / num_completions - 1) > 0:
            metrics.tpot.labels(adapter).observe(timings.decode_s / num_more)
        self._trace_generation(usage, timings)

    def _ttft_s(self, timings: inference_pb2.Timings) -> float:
        if self._method == GENERATING[1] and self._first_s is not None:
            return self._first_s - self._started_s
        # A whole reply comes when all is done; the engine knows when its first token was.
        return timings.adapter_load_s + timings.queue_s + timings.prefill_s

    def _trace_generation(self, usage: inference_pb2.Usage, timings: inference_pb2.Timings) -> None:
        """Add the engine's phases, which end with its last token: about now."""
        self._trace.set(
            loraland__digest=self._last.digest,
            loraland__adapter_tier=_tier(timings),
            loraland__request_id=self._last.request_id,
            gen_ai__usage__input_tokens=usage.prompt_tokens,
            gen_ai__usage__output_tokens=usage.completion_tokens,
        )
        ended_s = time.time()
        phases = (
            ("decode", timings.decode_s),
            ("prefill", timings.prefill_s),
            ("queue", timings.queue_s),
        )
        for name, duration_s in phases:
            self._trace.past_phase(name, ended_s - duration_s, ended_s)
            ended_s -= duration_s

    def _cost(self, code: str) -> int:
        """Return what counts against the tenant's tokens a second.

        A call that its caller gave up costs what it could have come to, as far as nobody counted:
        giving up must not be a way to use the engine for nothing.
        """
        if self._method not in GENERATING:
            return 0
        if code == _OK and self._method == GENERATING[2]:
            return self._prompt_estimate() + int(sum(s.num_tokens for s in self._last.scores))
        if code == _OK:
            return int(self._last.usage.prompt_tokens + self._last.usage.completion_tokens)
        if code not in _GIVEN_UP:
            return 0
        if self._method == GENERATING[1]:
            return self._prompt_estimate() + self._num_output_tokens
        return self._prompt_estimate() + self._output_estimate()

    def _prompt_estimate(self) -> int:
        given = self._request.input
        if given.WhichOneof("kind") == "token_ids":
            return len(list(given.token_ids.ids))
        return math.ceil(int(given.ByteSize()) / BYTES_PER_TOKEN)

    def _output_estimate(self) -> int:
        if self._method == GENERATING[2]:
            num_bytes = sum(len(text.encode()) for text in self._request.completions)
            return math.ceil(num_bytes / BYTES_PER_TOKEN)
        sampling = self._request.sampling
        return int((sampling.max_tokens or DEFAULT_MAX_TOKENS) * max(1, sampling.n))


def _tier(timings: inference_pb2.Timings) -> str:
    """Return where the adapter was when the call came, as metrics name it."""
    return inference_pb2.Tier.Name(timings.adapter_tier).removeprefix("TIER_").lower()
