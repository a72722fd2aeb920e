"""The scheduler alone: admission, chunks, preemption, limits, cancellation and deadlines."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loraland_engine.block_manager import BlockManager
from loraland_engine.limits import NO_LIMITS, EngineFull, Limits
from loraland_engine.prefix_cache import PrefixCache
from loraland_engine.scheduler import Scheduler
from loraland_engine.sequence import FinishReason, SamplingParams, Sequence


def build_scheduler(
    max_running: int = 2,
    max_step_tokens: int = 8,
    num_blocks: int = 100,
    limits: Limits = NO_LIMITS,
    num_prefix_blocks: int = 0,
) -> tuple[Scheduler, BlockManager]:
    blocks = BlockManager(num_blocks=num_blocks, block_tokens=4)
    scheduler = Scheduler(
        max_running=max_running,
        max_step_tokens=max_step_tokens,
        blocks=blocks,
        prefixes=PrefixCache(num_blocks=num_prefix_blocks, block_tokens=4),
        limits=limits,
    )
    return scheduler, blocks


def build_sequence(
    name: str, num_tokens: int, deadline_s: float | None = None, *, account: str = "",
    arrived_s: float = 0.0, max_tokens: int = 128,
) -> Sequence:  # fmt: skip
    params = SamplingParams(max_tokens=max_tokens)
    return Sequence(
        name, [1] * num_tokens, params, arrived_s, deadline_s=deadline_s, account=account
    )


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
    scheduler, _ = build_scheduler(max_step_tokens=4)
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
    """Within an account, whoever came first gets the slot that becomes free."""
    scheduler, _ = build_scheduler(max_running=1)
    first, second, third = (build_sequence(n, 2) for n in ("first", "second", "third"))
    scheduler.add(first, second, third)

    advance(scheduler)
    scheduler.remove(first)
    after_first = advance(scheduler)

    assert after_first == [("second", 0, 2)]
    assert scheduler.num_waiting == 1


def test_scheduler_shares_slots_between_accounts_when_one_floods_it() -> None:
    """Two slots, six requests of one account, then one of another: it is not the seventh."""
    scheduler, _ = build_scheduler(max_running=2)
    flood = [build_sequence(f"flood{i}", 2, account="flood") for i in range(6)]
    scheduler.add(*flood)
    advance(scheduler)
    scheduler.add(build_sequence("other", 2, account="other"))

    scheduler.remove(flood[0])
    steps = advance(scheduler)

    assert [name for name, _, _ in steps] == ["flood1", "other"]


def test_scheduler_preempts_the_newest_when_blocks_run_out() -> None:
    """The oldest goes on; the newest waits, keeps its tokens and is computed again."""
    scheduler, blocks = build_scheduler(max_running=2, num_blocks=4)
    old, new = build_sequence("old", 6), build_sequence("new", 2)
    scheduler.add(old, new)

    steps = [advance(scheduler) for _ in range(8)]
    scheduler.remove(old)
    again = advance(scheduler)

    # The ninth token of the old one needs a third block, and the fifth of the new one a second.
    assert (steps[2], steps[3]) == ([("old", 7, 8), ("new", 3, 4)], [("old", 8, 9)])
    assert (scheduler.num_preemptions, again) == (1, [("new", 0, 5)])
    assert blocks.num_used == len(new.block_table) == 2


def test_scheduler_admits_nobody_into_the_last_blocks() -> None:
    """A newcomer leaves every running sequence a block to go on with."""
    scheduler, blocks = build_scheduler(num_blocks=3)
    scheduler.add(build_sequence("running", 4), build_sequence("newcomer", 8))

    names = [name for name, _, _ in advance(scheduler)]

    assert (names, blocks.num_free) == (["running"], 2)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(max_waiting=2), "2 completions wait, and no more than 2 may"),
        (Limits(max_waiting_kv=0.5), "may come to 20 tokens, 0.5 times what KV memory holds"),
    ],
    ids=["queue", "kv"],
)
def test_add_refuses_what_is_too_much_to_wait(limits: Limits, expected: str) -> None:
    """The refusal names the limit, and nothing of the request is kept."""
    scheduler, _ = build_scheduler(num_blocks=10, limits=limits)
    scheduler.add(*(build_sequence(f"r{i}", 4, max_tokens=6) for i in range(2)))

    with pytest.raises(EngineFull, match=expected):
        scheduler.add(build_sequence("r2", 4, max_tokens=6))

    assert scheduler.num_waiting == 2


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "waiting"])
def test_reap_ends_a_request_when_it_is_cancelled(is_running: bool) -> None:
    """A cancelled request ends at the next step, wherever it is."""
    scheduler, _ = build_scheduler(max_running=1)
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
    scheduler, _ = build_scheduler(max_running=1)
    request = build_sequence("request", 2, deadline_s=5.0)
    scheduler.add(request)

    before, after = scheduler.reap(4.9), scheduler.reap(5.0)

    assert (before, after) == ([], [(request, FinishReason.DEADLINE)])


# What may happen before a step: a request of an account with so many tokens and so much to say,
# or a cancel of one of the living.
ARRIVALS = st.tuples(st.integers(0, 2), st.integers(1, 20), st.integers(1, 12))
EVENTS = st.one_of(st.none(), ARRIVALS, st.integers(0, 50))


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=60), st.integers(8, 14))
def test_scheduler_keeps_its_invariants_over_random_traces(
    events: list[Any], num_blocks: int
) -> None:
    """Blocks and slots add up, no step exceeds its budget, every request ends exactly once."""
    scheduler, blocks = build_scheduler(max_running=4, num_blocks=num_blocks)
    alive: dict[str, Sequence] = {}
    begun, ended = 0, Counter[str]()
    cancelled: set[str] = set()
    step = 0
    while alive or step < len(events):
        match events[step] if step < len(events) else None:
            case (account, num_tokens, max_tokens):
                begun += 1
                sequence = build_sequence(
                    f"r{step}", num_tokens, account=str(account), max_tokens=max_tokens
                )
                alive[sequence.request_id] = sequence
                scheduler.add(sequence)
            case int(index) if alive:
                name = list(alive)[index % len(alive)]
                scheduler.cancel(name)
                cancelled.add(name)
        ended.update(s.request_id for s, _ in scheduler.reap(step))
        chunks = advance(scheduler, step)
        assert not cancelled & {name for name, _, _ in chunks}
        assert 0 < sum(end - start for _, start, end in chunks) <= 8 or not set(alive) - set(ended)
        for name in [n for n in alive if n not in ended]:
            if alive[name].num_output >= alive[name].params.max_tokens:
                scheduler.remove(alive[name])
                ended[name] += 1
        alive = {n: s for n, s in alive.items() if n not in ended}
        held = [b for s in alive.values() for b in s.block_table]
        assert len(held) == len(set(held)) == blocks.num_used == num_blocks - blocks.num_free
        slots = [s.kv_slot for s in alive.values() if s.kv_slot is not None]
        assert len(slots) == len(set(slots)) == scheduler.num_running <= 4
        step += 1

    assert len(ended) == begun
    assert set(ended.values()) <= {1}
