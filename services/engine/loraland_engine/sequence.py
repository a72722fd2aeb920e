"""A request inside the engine: its tokens, its limits, and what it gives back. No torch, no I/O.

A sequence is computed front to back. ``token_ids`` is prompt plus output; the first ``num_computed``
of them are in KV memory. A decode step is merely a chunk of one token.
"""

import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from loraland_engine.history import TokenHistory

NO_ADAPTER = -1


class FinishReason(StrEnum):
    """Why a sequence ended; each ends exactly once."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    # What it asked for turned out to be impossible; the output's ``error`` says why.
    REFUSED = "refused"
    # Something raised that should not; the output's ``failure`` is what.
    FAILED = "failed"


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen; docs/requests.md explains each.

    Temperature 0 is greedy, ``top_k`` 0 considers every token. ``num_logprobs`` None asks for no
    log-probabilities, 0 for those of the chosen tokens alone.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    num_logprobs: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False

    @property
    def has_penalties(self) -> bool:
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1.0, 0.0, 0.0)

    @property
    def has_adjustments(self) -> bool:
        """Whether the logits are changed before a token is chosen."""
        return bool(self.logit_bias) or self.has_penalties


class Constraint(Protocol):
    """What an answer's form allows next; one belongs to one sequence."""

    @property
    def error(self) -> str:
        """Why it can go no further; empty while it can."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow."""

    def copy(self) -> "Constraint":
        """Return another one at the beginning."""

    def mask(self) -> bytes:
        """Return one bit a token, lowest first: 1 where it may come next."""

    def accept(self, token_id: int) -> None: ...


@dataclass(frozen=True)
class Caller:
    """On whose behalf a request runs: see ``fairness``. Tenants share nothing, not even a prefix."""

    tenant: str = ""
    weight: float = 1.0
    priority: int = 0


NOBODY = Caller()


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its natural-logarithmic probability, and the likeliest ones in its place."""

    token_id: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Timings:
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class Output:
    """What one step adds to one completion; its last one carries ``finish_reason``.

    A request for ``n`` completions has that many, told apart by ``index``.
    """

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    # Of the prompt's tokens, those that were not computed.
    num_cached_tokens: int = 0
    timings: Timings = Timings()
    index: int = 0
    # Of the chosen tokens where they were asked for; of a scored completion, all at once.
    logprobs: tuple[TokenLogprob, ...] = ()
    error: str = ""
    # For a log, not for the caller.
    failure: Exception | None = None

    @property
    def logprob(self) -> float:
        """Return the natural logarithm of the probability of all its tokens."""
        return sum(p.logprob for p in self.logprobs)


@dataclass(eq=False)
class Sequence:
    """One completion's state. ``adapter_slot`` is NO_ADAPTER for the base model.

    ``request_id`` is its own; ``owner_id`` that of the request whose completion ``index`` it is.
    """

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
    has_ended: bool = False
    owner_id: str = ""
    index: int = 0
    constraint: Constraint | None = None
    # What its constraint raised in this step.
    failure: Exception | None = None
    # Who is charged for it.
    account: str = ""
    caller: Caller = NOBODY
    # Names the adapter's content; empty for the base model.
    adapter_id: str = ""
    # Its place among all arrivals; the scheduler gives it.
    order: int = 0
    # Blocks of KV memory that it holds, in the order of its tokens.
    block_table: list[int] = field(default_factory=list)
    # Tokens of its prompt that were found and not computed; the blocks that are yet to be copied;
    # and what the blocks of its prompt are known by.
    num_cached: int = 0
    prefix_blocks: list[int] = field(default_factory=list)
    prefix_keys: list[bytes] = field(default_factory=list)
    # Scored tokens by position.
    scores: dict[int, TokenLogprob] = field(default_factory=dict)
    history: TokenHistory | None = None
    generator: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.num_prompt = len(self.token_ids)
        self.owner_id = self.owner_id or self.request_id
        if self.params.has_penalties:
            self.history = TokenHistory(self.token_ids)
        # A generator of its own, so that its draws do not depend on who shares the batch.
        seed = self.params.seed
        own_seed = f"{seed}/{self.index}" if self.index and seed is not None else seed
        self.generator = random.Random(own_seed)  # noqa: S311 (sampling, not secrecy)

    def append(self, token_id: int) -> None:
        """Take the token that was chosen."""
        self.token_ids.append(token_id)
        if self.history is not None:
            self.history.add(token_id)
        if self.constraint is not None:
            self.constraint.accept(token_id)

    @property
    def takes_likeliest(self) -> bool:
        """Whether its next token is its logits' largest, and nobody asks for more of them."""
        params = self.params
        return not (
            params.temperature > 0
            or params.has_adjustments
            or params.num_logprobs is not None
            or self.constraint is not None
            or self.score_from is not None
        )

    @property
    def num_output(self) -> int:
        """Tokens generated, or scored."""
        return len(self.token_ids) - (self.score_from or self.num_prompt)

    @property
    def num_remaining(self) -> int:
        """Tokens that are known but not yet computed."""
        return len(self.token_ids) - self.num_computed

    @property
    def num_reusable(self) -> int:
        """Tokens at the beginning that another sequence may share; nobody wants their logits."""
        return self.score_from or self.num_prompt

    @property
    def num_at_most(self) -> int:
        """Tokens that it may come to."""
        if self.score_from is not None:
            return len(self.token_ids)
        return self.num_prompt + self.params.max_tokens

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
