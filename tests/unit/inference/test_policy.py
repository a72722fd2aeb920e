"""What a tier keeps: traces of uses, and what holds whatever happens."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from loraland_inference.adapters.policy import HALF_LIFE_S, Ledger

BUDGET_BYTES = 100


def fill(ledger: Ledger, *holdings: tuple[str, int, float, int]) -> None:
    """Add holdings as (digest, size, load time, number of uses), all at time 0."""
    for digest, size_bytes, load_s, num_uses in holdings:
        holding = ledger.add(digest, size_bytes=size_bytes, load_s=load_s, now_s=0.0)
        for _ in range(num_uses - 1):
            holding.touch(0.0)


@pytest.mark.parametrize(
    ("holdings", "incoming", "expected"),
    [
        ([("a", 50, 1, 1), ("b", 50, 1, 2)], 50, ["a"]),
        ([("a", 50, 1, 1), ("b", 50, 9, 1)], 50, ["a"]),
        ([("a", 60, 1, 1), ("b", 40, 1, 1)], 40, ["a"]),
        ([("a", 50, 1, 1), ("b", 50, 1, 2)], 0, []),
        ([("a", 20, 1, 1), ("b", 20, 1, 1)], 60, []),
        ([("a", 50, 1, 1), ("b", 50, 1, 2)], 100, ["a", "b"]),
        ([("a", 50, 1, 1), ("b", 50, 1, 2)], 900, ["a", "b"]),
        ([("a", 10, 0.1, 1), ("b", 90, 2, 1)], 90, ["b"]),
    ],
    ids=[
        "less-used", "sooner-back", "larger", "nothing-comes", "fits", "both", "too-large",
        "no-more-than-needed",
    ],
)  # fmt: skip
def test_victims_are_what_costs_least_to_be_without(
    holdings: list[tuple[str, int, float, int]], incoming: int, expected: list[str]
) -> None:
    """Use, time to load and size decide together; nothing goes for no reason."""
    ledger = Ledger(BUDGET_BYTES)
    fill(ledger, *holdings)

    assert [h.digest for h in ledger.victims(incoming, 0.0)] == expected


def test_use_of_long_ago_counts_less_than_use_of_now() -> None:
    """Ten uses ten half-lives ago are worth less than one now."""
    ledger = Ledger(BUDGET_BYTES)
    fill(ledger, ("old", 50, 1, 10))
    ledger.add("new", size_bytes=50, load_s=1, now_s=10 * HALF_LIFE_S)

    assert [h.digest for h in ledger.victims(50, 10 * HALF_LIFE_S)] == ["old"]


def hit_rate(*, by_worth: bool) -> float:
    """Return the share of hits on skewed traffic, by our measure or by the time of use alone."""
    generator = random.Random(7)  # noqa: S311 (a test's dice)
    ledger, hits, count = Ledger(BUDGET_BYTES), 0, 4000
    names = [f"{i}" for i in range(60)]
    weights = [1 / (i + 1) for i in range(60)]
    for now_s, digest in enumerate(generator.choices(names, weights, k=count)):
        holding = ledger.find(digest)
        if holding is not None:
            hits += 1
            holding.touch(now_s)
            continue
        if by_worth:
            victims = [h.digest for h in ledger.victims(10, now_s)]
        else:
            held = [h for d in ledger.digests if (h := ledger.find(d))]
            oldest = sorted(held, key=lambda h: h.used_at_s)
            victims = [h.digest for h in oldest[: max(0, len(oldest) - 9)]]
        for victim in victims:
            ledger.remove(victim)
        ledger.add(digest, size_bytes=10, load_s=1.0, now_s=now_s)
    return hits / count


def test_measure_beats_recency_on_skewed_traffic() -> None:
    """Ten places, sixty adapters, Zipf: what is used often stays although others came since."""
    assert hit_rate(by_worth=True) > hit_rate(by_worth=False) + 0.05


class TierTraffic(RuleBasedStateMachine):
    """Artifacts come, are used, held, pinned and let go, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(BUDGET_BYTES)
        self.now_s = 0.0
        self.num_added = 0

    def held(self) -> list[str]:
        return sorted(d for d in self.ledger.digests if self._find(d).references)

    def _find(self, digest: str):  # type: ignore[no-untyped-def]
        holding = self.ledger.find(digest)
        assert holding is not None
        return holding

    def _make_room(self, incoming_bytes: int) -> None:
        for victim in self.ledger.victims(incoming_bytes, self.now_s):
            assert not victim.references
            assert not victim.is_pinned
            self.ledger.remove(victim.digest)

    @rule(size_bytes=st.integers(1, 70), load_s=st.floats(0.01, 100), wait_s=st.floats(0, 1000))
    def come(self, size_bytes: int, load_s: float, wait_s: float) -> None:
        self.now_s += wait_s
        self._make_room(size_bytes)
        self.num_added += 1
        digest = f"d{self.num_added}"
        self.ledger.add(digest, size_bytes=size_bytes, load_s=load_s, now_s=self.now_s)
        self._find(digest).references = 1

    @precondition(lambda self: self.ledger.digests)
    @rule(data=st.data(), pins=st.booleans())
    def use(self, data: st.DataObject, *, pins: bool) -> None:
        holding = self._find(data.draw(st.sampled_from(sorted(self.ledger.digests))))
        holding.references += 1
        holding.is_pinned = pins
        holding.touch(self.now_s)

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        self._find(data.draw(st.sampled_from(self.held()))).references -= 1
        self._make_room(0)

    @invariant()
    def budget_holds_but_for_what_is_in_use(self) -> None:
        kept = [self._find(d) for d in self.ledger.digests]
        firm_bytes = sum(h.size_bytes for h in kept if h.references or h.is_pinned)
        assert self.ledger.used_bytes <= max(BUDGET_BYTES, firm_bytes)


TestTierTraffic = TierTraffic.TestCase
TestTierTraffic.settings = settings(deadline=None, max_examples=40, stateful_step_count=30)
