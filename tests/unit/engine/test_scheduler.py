"""The scheduler alone: admission, chunks, cancellation and deadlines."""

import random

import pytest
from loraland_engine.scheduler import Scheduler
from loraland_engine.sequence import FinishReason, SamplingParams, Sequence


def build_sequence(name: str, num_tokens: int, deadline_s: float | None = None) -> Sequence:
    return Sequence(name, [1] * num_tokens, SamplingParams(), 0.0, deadline_s=deadline_s)


def advance(scheduler: Scheduler, now_s: float = 0.0) -> list[tuple[str, int, int]]:
    """Run one step as the engine does: compute the chunks, then append a token where due."""
    chunks = scheduler.schedule(now_s)
    for chunk in chunks:
        is_last = chunk.is_last
        chunk.sequence.num_computed = chunk.end
        if is_last:
            chunk.sequence.token_ids.append(1)
    return [(c.sequence.request_id, c.start, c.end) for c in chunks]


def test_scheduler_splits_a_prompt_when_it_exceeds_the_budget() -> None:
    """A long prompt is computed in pieces, and decodes of others share its steps."""
    scheduler = Scheduler(max_running=2, max_step_tokens=4)
    scheduler.add(build_sequence("short", 2))
    scheduler.add(build_sequence("long", 7))

    steps = [advance(scheduler) for _ in range(4)]

    assert steps == [
        [("short", 0, 2), ("long", 0, 2)],
        [("short", 2, 3), ("long", 2, 5)],
        [("short", 3, 4), ("long", 5, 7)],
        [("short", 4, 5), ("long", 7, 8)],
    ]


def test_scheduler_admits_in_order_of_arrival_when_slots_are_short() -> None:
    """Whoever came first gets the slot that becomes free."""
    scheduler = Scheduler(max_running=1, max_step_tokens=8)
    first, second, third = (build_sequence(n, 2) for n in ("first", "second", "third"))
    for sequence in (first, second, third):
        scheduler.add(sequence)

    advance(scheduler)
    scheduler.remove(first)
    after_first = advance(scheduler)

    assert after_first == [("second", 0, 2)]
    assert scheduler.num_waiting == 1


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "waiting"])
def test_reap_ends_a_request_when_it_is_cancelled(is_running: bool) -> None:
    """A cancelled request ends at the next step, wherever it is."""
    scheduler = Scheduler(max_running=1, max_step_tokens=8)
    blocker, request = build_sequence("blocker", 2), build_sequence("request", 2)
    for sequence in (request,) if is_running else (blocker, request):
        scheduler.add(sequence)
    advance(scheduler)

    scheduler.cancel("request")
    ended = scheduler.reap(0.0)

    assert ended == [(request, FinishReason.CANCELLED)]
    assert scheduler.reap(0.0) == []


def test_reap_ends_a_request_when_its_deadline_has_passed() -> None:
    """The deadline counts while waiting as well."""
    scheduler = Scheduler(max_running=1, max_step_tokens=8)
    request = build_sequence("request", 2, deadline_s=5.0)
    scheduler.add(request)

    before, after = scheduler.reap(4.9), scheduler.reap(5.0)

    assert (before, after) == ([], [(request, FinishReason.DEADLINE)])


@pytest.mark.parametrize("seed", range(5))
def test_scheduler_keeps_its_invariants_over_random_traces(seed: int) -> None:
    """KV slots free plus used are all, no slot is shared, no step exceeds its budget."""
    rng = random.Random(seed)  # noqa: S311 (a trace, not a secret)
    scheduler = Scheduler(max_running=4, max_step_tokens=8)
    alive: dict[str, Sequence] = {}
    ended: list[str] = []
    for step in range(300):
        if rng.random() < 0.3:
            sequence = build_sequence(f"r{step}", rng.randint(1, 20))
            alive[sequence.request_id] = sequence
            scheduler.add(sequence)
        if alive and rng.random() < 0.1:
            scheduler.cancel(rng.choice(list(alive)))
        ended += [s.request_id for s, _ in scheduler.reap(step)]
        chunks = advance(scheduler, step)
        assert sum(end - start for _, start, end in chunks) <= 8
        for name in [n for n in alive if n not in ended and alive[n].num_output > 5]:
            scheduler.remove(alive[name])
            ended.append(name)
        alive = {n: s for n, s in alive.items() if n not in ended}
        slots = [s.kv_slot for s in alive.values() if s.kv_slot is not None]
        assert len(slots) == len(set(slots)) == 4 - scheduler.num_free_kv_slots

    assert len(ended) == len(set(ended))
