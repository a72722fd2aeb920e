"""The choice of a replica: its order, what a change moves, and what it does to skewed traffic."""

import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loraland_core import keys, routing
from loraland_core.routing import Replica

ADAPTERS = [f"default/{i}" for i in range(40)]
adapter_ids = st.sampled_from(["", *ADAPTERS[:8]])
some_adapters = st.frozensets(st.sampled_from(ADAPTERS[:8]), max_size=4)
fleets = st.lists(
    st.builds(
        Replica,
        name=st.sampled_from([f"replica-{i}" for i in range(9)]),
        load=st.integers(0, 12),
        resident=some_adapters,
        rejected=some_adapters,
        is_draining=st.booleans(),
        is_down=st.booleans(),
    ),
    max_size=9,
    unique_by=lambda r: r.name,
)


def names(found: list[Replica]) -> list[str]:
    return [r.name for r in found]


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [
        ([Replica("b"), Replica("a", resident=frozenset({"default/0"}))], ["a", "b"]),
        ([Replica("a", load=9, resident=frozenset({"default/0"})), Replica("b")], ["b", "a"]),
        ([Replica("a", rejected=frozenset({"default/0"})), Replica("b", load=9)], ["b", "a"]),
        ([Replica("a", is_draining=True), Replica("b", load=9)], ["b", "a"]),
        (
            [Replica("a", is_down=True), Replica("b", is_draining=True)],
            ["b", "a"],
        ),
        ([], []),
    ],
    ids=["resident", "resident but busy", "rejecting", "draining", "down last", "none"],
)
def test_order_prefers(replicas: list[Replica], expected: list[str]) -> None:
    """Where it is, unless that is too busy; never first where it cannot be answered."""
    assert names(routing.order("default/0", replicas)) == expected


@given(adapter_ids, fleets)
def test_order_is_total_and_does_not_depend_on_the_order_given(
    adapter_id: str, fleet: list[Replica]
) -> None:
    """Every replica comes once, and all callers who saw the same choose the same."""
    found = routing.order(adapter_id, fleet)

    assert sorted(names(found)) == sorted(names(fleet))
    assert found == routing.order(adapter_id, list(reversed(fleet)))


@given(adapter_ids, fleets)
def test_unable_replicas_come_last(adapter_id: str, fleet: list[Replica]) -> None:
    """Draining, silent and refusing replicas stand behind all others."""
    unable = [
        adapter_id in r.rejected or r.is_draining or r.is_down
        for r in routing.order(adapter_id, fleet)
    ]

    assert unable == sorted(unable)


@given(adapter_ids, fleets)
def test_first_choice_keeps_the_bound(adapter_id: str, fleet: list[Replica]) -> None:
    """With one more request the first choice has at most 1.25 times the mean, rounded up."""
    able = [r for r in fleet if not (adapter_id in r.rejected or r.is_draining or r.is_down)]

    found = routing.order(adapter_id, fleet)
    assert not able or found[0].load + 1 <= routing.load_bound(able)


@given(st.integers(2, 9), st.integers(0, 8))
def test_only_what_a_lost_replica_had_moves(count: int, lost: int) -> None:
    """Every other adapter keeps its home."""
    fleet = [Replica(f"replica-{i}") for i in range(count)]
    gone = fleet[lost % count]

    before = {a: routing.order(a, fleet)[0] for a in ADAPTERS}
    after = {a: routing.order(a, [r for r in fleet if r != gone])[0] for a in ADAPTERS}
    assert {a for a in ADAPTERS if before[a] != after[a]} == {
        a for a in ADAPTERS if before[a] == gone
    }


def test_replica_is_read_from_its_signs_of_life() -> None:
    """Only what is in a slot counts as resident."""
    beat = keys.Heartbeat(
        replica="r", address="a:1", base_model="b", max_rank=8, num_slots=2, num_free_slots=1,
        queue_depth=3, draining=True, rejected={"x/y": keys.Rejection(digest="d", reason="No")},
    )  # fmt: skip
    held = {
        "x/a": keys.ResidentAdapter(digest="1", tier="slot"),
        "x/b": keys.ResidentAdapter(digest="2", tier="disk"),
    }

    found = routing.read(beat, keys.Residency(replica="r", adapters=held))
    expected = Replica(
        "r", load=3, resident=frozenset({"x/a"}), rejected=frozenset({"x/y"}), is_draining=True
    )
    assert (found, routing.read(beat, None).resident) == (expected, frozenset())


@dataclass
class Cache:
    """A replica of the simulation: slots that give up what was used least recently."""

    name: str
    num_slots: int = 8
    slots: "OrderedDict[str, None]" = field(default_factory=OrderedDict)
    ends: list[int] = field(default_factory=list)

    def view(self) -> Replica:
        return Replica(self.name, load=len(self.ends), resident=frozenset(self.slots))

    def serve(self, adapter_id: str, end: int) -> bool:
        """Take a request that lasts until ``end``; return whether its adapter was there."""
        is_hit = adapter_id in self.slots
        self.slots[adapter_id] = None
        self.slots.move_to_end(adapter_id)
        if len(self.slots) > self.num_slots:
            self.slots.popitem(last=False)
        self.ends.append(end)
        return is_hit


@dataclass
class Outcome:
    hit_rate: float
    # Of the requests, and of the largest number at once, over the mean.
    busiest: float
    highest_load: float


Choice = Callable[[str, list[Cache], int], Cache]


def simulate(choose: Choice, *, num_replicas: int = 4, num_requests: int = 6000) -> Outcome:
    """Play Zipf traffic over 64 adapters, one request a tick, each 16 ticks long, 64 on a miss."""
    generator = random.Random(7)  # noqa: S311 (a simulation)
    weights = [1 / rank for rank in range(1, 65)]
    fleet = [Cache(f"replica-{i}") for i in range(num_replicas)]
    served: Counter[str] = Counter()
    num_hits, highest = 0, 0.0
    for now, index in enumerate(generator.choices(range(64), weights, k=num_requests)):
        for cache in fleet:
            cache.ends = [end for end in cache.ends if end > now]
        cache = choose(f"default/{index}", fleet, now)
        is_hit = f"default/{index}" in cache.slots
        cache.serve(f"default/{index}", now + (16 if is_hit else 64))
        num_hits += is_hit
        served[cache.name] += 1
        loads = [len(c.ends) for c in fleet]
        if sum(loads) >= num_replicas * 4:
            highest = max(highest, max(loads) * num_replicas / sum(loads))
    return Outcome(
        num_hits / num_requests, max(served.values()) * num_replicas / num_requests, highest
    )


def routed(adapter_id: str, fleet: list[Cache], _: int) -> Cache:
    first = routing.order(adapter_id, [c.view() for c in fleet])[0]
    return next(c for c in fleet if c.name == first.name)


def hashed(adapter_id: str, fleet: list[Cache], _: int) -> Cache:
    return max(fleet, key=lambda c: routing.score(adapter_id, c.name))


def in_turn(_: str, fleet: list[Cache], now: int) -> Cache:
    return fleet[now % len(fleet)]


def at_random(_: str, fleet: list[Cache], now: int) -> Cache:
    return random.Random(now).choice(fleet)  # noqa: S311 (a simulation)


def test_routing_finds_more_than_turns_or_chance_and_stays_balanced() -> None:
    """On skewed traffic: far more hits than without affinity, far evener than hashing alone."""
    ours, hashing, turns, chance = map(simulate, (routed, hashed, in_turn, at_random))

    assert ours.hit_rate > turns.hit_rate + 0.15
    assert ours.hit_rate > chance.hit_rate + 0.15
    assert ours.highest_load < hashing.highest_load
    assert ours.busiest < hashing.busiest


def test_lost_replica_costs_hits_only_for_a_while() -> None:
    """The order after a loss is that of the smaller fleet, whatever was resident there."""
    fleet = [Replica(f"replica-{i}", resident=frozenset(ADAPTERS[i::3])) for i in range(3)]
    gone = [replace(r, is_down=r.name == "replica-0") for r in fleet]

    first = [routing.order(a, gone)[0].name for a in ADAPTERS]
    assert "replica-0" not in first
    assert set(first) == {"replica-1", "replica-2"}
