"""Random lives of requests on a whole engine: cancelled, too late, scored, several at once."""

from collections import Counter
from typing import Any

import tiny_models
from hypothesis import given, settings
from hypothesis import strategies as st
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.sequence import FinishReason, Output, SamplingParams

CONTEXT = 64


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Trace:
    """One engine with memory for two contexts, and what became of each completion."""

    def __init__(self) -> None:
        self.clock = Clock()
        probe = Engine(tiny_models.build_llama(), tiny_models.ByteTokenizer(), EngineConfig())
        config = EngineConfig(
            max_running=4, max_step_tokens=16, context_tokens=CONTEXT, num_slots=1,
            kv_memory_bytes=3 * CONTEXT * probe.kv_token_bytes,
        )  # fmt: skip
        self.engine = Engine(
            tiny_models.build_llama(), tiny_models.ByteTokenizer(), config, clock=self.clock
        )
        self.begun: set[tuple[str, int]] = set()
        self.ends: Counter[tuple[str, int]] = Counter()
        self.cancelled: set[str] = set()
        self.deadlines_s: dict[str, float] = {}

    def generate(self, name: str, num_tokens: int, n: int, deadline_s: float | None) -> None:
        params = SamplingParams(max_tokens=num_tokens, temperature=1.0, n=n, ignore_eos=True)
        self.engine.submit(name, list(range(1, 30 + n)), params, deadline_s=deadline_s)
        self.begun |= {(name, index) for index in range(n)}
        if deadline_s is not None:
            self.deadlines_s[name] = deadline_s

    def score(self, name: str) -> None:
        self.engine.submit_score(name, list(range(1, 20)), [[1, 2, 3], [4]])
        self.begun |= {(name, 0), (name, 1)}

    def cancel(self, index: int) -> None:
        names = sorted({name for name, _ in self.begun - set(self.ends)})
        if names:
            self.engine.cancel(names[index % len(names)])
            self.cancelled.add(names[index % len(names)])

    def step(self) -> None:
        self.clock.now_s += 1.0
        for output in self.engine.step():
            self._check(output)

    def _check(self, output: Output) -> None:
        key = (output.request_id, output.index)
        assert key in self.begun
        assert key not in self.ends
        is_late = self.clock.now_s >= self.deadlines_s.get(output.request_id, 1e9)
        if output.request_id in self.cancelled or is_late:
            assert output.finish_reason in (FinishReason.CANCELLED, FinishReason.DEADLINE)
            assert output.token_ids == ()
        if output.finish_reason:
            self.ends[key] += 1


GENERATIONS = st.tuples(
    st.integers(1, 20), st.integers(1, 3), st.one_of(st.none(), st.integers(1, 12))
)
EVENTS = st.one_of(st.none(), GENERATIONS, st.just("score"), st.integers(0, 20))


@settings(max_examples=8, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=25))
def test_every_completion_ends_once_and_gets_nothing_after_a_cancel_or_a_deadline(
    events: list[Any],
) -> None:
    """Whatever is asked for, in whatever order, with memory that is short; then all is free."""
    trace = Trace()
    for number, event in enumerate(events):
        match event:
            case (num_tokens, n, left_s):
                deadline_s = None if left_s is None else trace.clock.now_s + left_s
                trace.generate(f"r{number}", num_tokens, n, deadline_s)
            case "score":
                trace.score(f"r{number}")
            case int(index):
                trace.cancel(index)
        trace.step()
    while trace.engine.has_work():
        trace.step()

    stats = trace.engine.stats()
    assert set(trace.ends) == trace.begun
    assert set(trace.ends.values()) <= {1}
    assert (stats.num_free_kv_blocks, stats.num_running) == (stats.num_kv_blocks, 0)
