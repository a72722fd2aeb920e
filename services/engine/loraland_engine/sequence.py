"""A request inside the engine: its tokens, its limits, and what it gives back. No torch, no I/O.

A sequence is computed front to back. ``token_ids`` is prompt plus output; the first ``num_computed``
of them are in KV memory. A decode step is merely a chunk of one token.
"""

import random
from dataclasses import dataclass, field
from enum import StrEnum

NO_ADAPTER = -1


class FinishReason(StrEnum):
    """Why a sequence ended; each ends exactly once."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. Temperature 0 is greedy; ``top_k`` 0 considers every token."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False


@dataclass(frozen=True)
class Timings:
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class Output:
    """What one step adds to one request; the last one carries ``finish_reason``."""

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    timings: Timings = Timings()
    # Natural logarithm, summed over the completion; for scoring requests only.
    logprob: float | None = None


@dataclass
class Sequence:
    """One request's state. ``adapter_slot`` is NO_ADAPTER for the base model."""

    request_id: str
    token_ids: list[int]
    params: SamplingParams
    arrived_s: float
    adapter_slot: int = NO_ADAPTER
    deadline_s: float | None = None
    # Scoring: index of the completion's first token; nothing is generated.
    score_from: int | None = None
    num_prompt: int = 0
    num_computed: int = 0
    kv_slot: int | None = None
    admitted_s: float | None = None
    first_token_s: float | None = None
    cancelled: bool = False
    logprob: float = 0.0
    generator: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.num_prompt = len(self.token_ids)
        # A generator of its own, so that its draws do not depend on who shares the batch.
        self.generator = random.Random(self.params.seed)  # noqa: S311 (sampling, not secrecy)

    @property
    def num_output(self) -> int:
        """Tokens generated, or scored."""
        return len(self.token_ids) - (self.score_from or self.num_prompt)

    @property
    def num_remaining(self) -> int:
        """Tokens that are known but not yet computed."""
        return len(self.token_ids) - self.num_computed

    def logit_positions(self, start: int, end: int) -> range:
        """Return the positions within [start, end) whose logits somebody wants."""
        last = len(self.token_ids)
        if self.score_from is None:
            return range(last - 1, last) if end == last else range(0)
        return range(max(start, self.score_from - 1), min(end, last - 1))

    def timings(self, now_s: float) -> Timings:
        admitted_s = self.admitted_s if self.admitted_s is not None else now_s
        first_s = self.first_token_s if self.first_token_s is not None else now_s
        return Timings(
            queue_s=admitted_s - self.arrived_s,
            prefill_s=max(0.0, first_s - admitted_s),
            decode_s=max(0.0, now_s - first_s),
        )
