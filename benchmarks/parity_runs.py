"""The engine's greedy answers, however its requests come: `make parity`. Keeps the logits."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from loraland_engine.engine import Engine
from loraland_engine.sequence import SamplingParams
from torch import Tensor

NUM_TOKENS = 64
PARAMS = SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True)
# Steps between arrivals where requests come one after the other into a running batch.
GAP_STEPS = 3

Request = tuple[str, list[int]]


@dataclass(frozen=True)
class Answer:
    """Greedy tokens, and for each the logits that it was chosen from."""

    token_ids: tuple[int, ...]
    logits: Tensor


class Recorder:
    """Runs requests on an engine and keeps the logits of each token that it chooses."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._token_ids: dict[str, list[int]] = {}
        self._logits: dict[str, list[Tensor]] = {}

    def together(self, requests: list[Request]) -> list[Answer]:
        """Answer all in one batch."""
        return self._answer(requests, range(len(requests)), num_steps=0)

    def alone(self, requests: list[Request]) -> list[Answer]:
        """Answer each when nobody else is there."""
        return self._answer(requests, range(len(requests)), num_steps=None)

    def staggered(self, requests: list[Request]) -> list[Answer]:
        """Let the last come first, and each into the batch of those before."""
        return self._answer(requests, range(len(requests))[::-1], num_steps=GAP_STEPS)

    def _answer(
        self, requests: list[Request], order: range, *, num_steps: int | None
    ) -> list[Answer]:
        self._token_ids, self._logits = {}, {}
        run = self._engine._runner.run

        def record(chunks: Any) -> Any:
            found = run(chunks)
            for request_id, rows in found.items():
                self._logits.setdefault(request_id, []).append(rows[-1].float().clone())
            return found

        self._engine._runner.run = record  # type: ignore[method-assign]
        try:
            for index in order:
                adapter, prompt = requests[index]
                self._engine.submit(str(index), prompt, PARAMS, adapter_id=adapter)
                self._step(num_steps)
            self._step(None)
        finally:
            self._engine._runner.run = run  # type: ignore[method-assign]
        return [
            Answer(tuple(self._token_ids[str(i)]), torch.stack(self._logits[str(i)]))
            for i in range(len(requests))
        ]

    def _step(self, num_steps: int | None) -> None:
        """Run so many steps; None runs to the end."""
        while self._engine.has_work() and num_steps != 0:
            for output in self._engine.step():
                self._token_ids.setdefault(output.request_id, []).extend(output.token_ids)
            num_steps = None if num_steps is None else num_steps - 1


def compositions(build: Any, requests: list[Request]) -> Iterator[tuple[str, list[Answer]]]:
    """Answer the requests in each way that must not matter. ``build`` takes engine settings."""
    engine = build(prefix_cache=False)
    yield "alone", Recorder(engine).alone(requests)
    yield "arriving in turn, last first", Recorder(engine).staggered(requests)
    yield (
        "prompts whole",
        Recorder(build(prefix_cache=False, max_step_tokens=512)).together(requests),
    )
    two_contexts = 2 * engine.context_tokens * engine.kv_token_bytes
    scarce = build(prefix_cache=False, kv_memory_bytes=two_contexts)
    answers = Recorder(scarce).together(requests)
    assert scarce.stats().num_preemptions, "memory was not short"
    yield "preempted and computed again", answers
    cached = build(prefix_cache=True)
    Recorder(cached).together(requests)
    answers = Recorder(cached).together(requests)
    assert cached.stats().num_prefix_hit_tokens, "no prefix was found"
    yield "prefixes found", answers


def difference(found: Answer, expected: Answer) -> float:
    """Return the largest difference up to the first token that differs, as a share."""
    end = _num_same(found, expected) + 1
    gap = (found.logits[:end] - expected.logits[:end]).abs().max()
    return float(gap / expected.logits.abs().max())


def is_changed(found: Answer, expected: Answer, *, tie: float) -> bool:
    """Whether a token differs; not where the expected one was ahead by a tie alone."""
    index = _num_same(found, expected)
    if index == len(found.token_ids):
        return False
    row = expected.logits[index]
    behind = row.max() - row[found.token_ids[index]]
    return bool(behind > tie * expected.logits.abs().max())


def num_other_tokens(found: Answer, wanted: Tensor, *, tie: float) -> int:
    """Return how many tokens are not the likeliest of ``wanted``.

    One that is behind it by no more than ``tie``, a share of the largest logit, may be chosen too.
    """
    chosen = torch.tensor(found.token_ids)[:, None]
    behind = wanted.amax(1) - wanted.gather(1, chosen)[:, 0]
    return int((behind > tie * wanted.abs().max()).sum())


def _num_same(found: Answer, expected: Answer) -> int:
    """Return how many tokens come before the first that differs."""
    pairs = zip(found.token_ids, expected.token_ids, strict=True)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(found.token_ids))
