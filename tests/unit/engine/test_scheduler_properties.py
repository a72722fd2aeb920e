"""What the scheduler promises whatever comes: waits, shares by weight, and whose turn it is."""

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loraland_engine.block_manager import BlockManager
from loraland_engine.fairness import INPUT_COST, OUTPUT_COST
from loraland_engine.prefix_cache import PrefixCache
from loraland_engine.scheduler import LIFT_AFTER_S, Scheduler
from loraland_engine.sequence import Caller, SamplingParams, Sequence

STEP_S = 0.1
MAX_TOKENS = 10
LONGEST_S = MAX_TOKENS * STEP_S
NUM_INPUT = 2


@dataclass
class World:
    """A scheduler with memory for all, a clock, and what each account was given."""

    max_running: int
    step: int = 0
    work: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    waits_s: dict[str, float] = field(default_factory=dict)
    alive: list[Sequence] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(
            max_running=self.max_running,
            max_step_tokens=64,
            blocks=BlockManager(num_blocks=1000, block_tokens=4),
            prefixes=PrefixCache(num_blocks=0, block_tokens=4),
        )

    @property
    def now_s(self) -> float:
        return self.step * STEP_S

    def has_waiting(self, account: str) -> bool:
        return any(s.account == account and s.kv_slot is None for s in self.alive)

    def add(
        self, name: str, account: str, max_tokens: int, *, priority: int = 0, weight: float = 1.0
    ) -> None:
        sequence = Sequence(
            name, [1] * NUM_INPUT, SamplingParams(max_tokens=max_tokens), self.now_s,
            account=account, caller=Caller(weight=weight, priority=priority),
        )  # fmt: skip
        self.alive.append(sequence)
        self.scheduler.add(sequence)

    def advance(self) -> None:
        """Run one step; each sequence that is computed to its end gains a token."""
        for chunk in self.scheduler.schedule(self.now_s):
            sequence = chunk.sequence
            if chunk.start == 0:
                self.waits_s[sequence.request_id] = self.now_s - sequence.arrived_s
                self.work[sequence.account] += NUM_INPUT * INPUT_COST
            sequence.num_computed = chunk.end
            self.work[sequence.account] += OUTPUT_COST
            sequence.token_ids.append(1)
        self.step += 1
        ended = [s for s in self.alive if s.num_output >= s.params.max_tokens]
        self.alive = [s for s in self.alive if s not in ended]
        for sequence in ended:
            self.scheduler.remove(sequence)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 9), st.integers(-3, 9), st.integers(1, MAX_TOKENS)), min_size=1),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, MAX_TOKENS)), min_size=1),
)  # fmt: skip
def test_nobody_who_asks_for_its_share_waits_longer_than_the_threshold_and_the_longest_request(
    max_running: int, crowd: list[tuple[int, int, int]], singles: list[tuple[int, int]]
) -> None:
    """A crowd of accounts is busy, each was served, and goes first; then a few single ones come."""
    world = World(max_running)
    for index, (account, priority, max_tokens) in enumerate(crowd * 5):
        world.add(f"crowd{index}", f"crowd{account}", max_tokens, priority=priority)
    while len(world.work) < len({account for account, _, _ in crowd}):
        world.advance()
    # No more of them at once than there are slots.
    arrivals = {world.step + step: max_tokens for step, max_tokens in singles[:max_running]}

    while world.scheduler.has_work() or world.step <= max(arrivals):
        if world.step in arrivals:
            world.add(
                f"single{world.step}", f"single{world.step}", arrivals[world.step], priority=-9
            )
        world.advance()

    waits_s = [wait_s for name, wait_s in world.waits_s.items() if name.startswith("single")]
    assert len(waits_s) == len(arrivals)
    assert max(waits_s) <= LIFT_AFTER_S + LONGEST_S + STEP_S / 2


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=5),
    st.lists(st.integers(1, MAX_TOKENS), min_size=3, max_size=6),
)
def test_accounts_with_enough_to_do_get_work_by_their_weights(
    max_running: int, weights: list[float], lengths: list[int]
) -> None:
    """At any time no two differ, by weight, in more than what fills all slots once."""
    world = World(max_running)
    for turn in range(40):
        for index, weight in enumerate(weights):
            # Of different lengths: shares are shares of work, not of requests.
            length = lengths[(turn * (index + 1)) % len(lengths)]
            world.add(f"{index}/{turn}", str(index), length, weight=weight)

    largest = 0.0
    while all(world.has_waiting(str(index)) for index in range(len(weights))):
        world.advance()
        shares = [world.work[str(i)] / weight for i, weight in enumerate(weights)]
        largest = max(largest, max(shares) - min(shares))

    request = NUM_INPUT * INPUT_COST + MAX_TOKENS * OUTPUT_COST
    assert largest <= (max_running + 1) * request / min(weights)


@pytest.mark.parametrize("priority", [0, 5], ids=["equal", "higher"])
def test_account_with_much_to_do_does_not_delay_one_with_little(priority: int) -> None:
    """A hundred requests came first; a single one gets the next slot, a lower one is lifted."""
    world = World(max_running=2)
    for index in range(100):
        world.add(f"many{index}", "many", MAX_TOKENS, priority=priority)
    world.advance()

    world.add("single", "single", 1)
    while "single" not in world.waits_s:
        world.advance()

    limit_s = LONGEST_S if priority == 0 else LIFT_AFTER_S + LONGEST_S
    assert world.waits_s["single"] <= limit_s
