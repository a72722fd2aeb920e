"""From S3 to a slot and back: what may happen in which state, and when a failure is tried again."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loraland_core.errors import ArtifactInvalid, Unavailable
from loraland_inference.adapters.states import TRANSITIONS, Event, Places, State


class World:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.places = Places(lambda: self.now_s, jitter=lambda _, high: high)

    def run(self, *events: Event) -> State:
        for event in events:
            self.places.move("d", event)
        return self.places.state("d")


E = Event
TO_RESIDENT = (E.FETCH, E.FETCHED, E.PACKED, E.LOAD, E.LOADED)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((), State.ABSENT),
        (TO_RESIDENT[:1], State.FETCHING),
        (TO_RESIDENT[:2], State.DISK),
        ((E.FOUND,), State.DISK),
        (TO_RESIDENT[:3], State.HOST),
        (TO_RESIDENT[:4], State.LOADING),
        (TO_RESIDENT, State.RESIDENT),
        ((*TO_RESIDENT, E.UNLOADED), State.HOST),
        ((*TO_RESIDENT[:4], E.UNLOADED), State.HOST),
        ((*TO_RESIDENT[:3], E.HOST_EVICTED), State.DISK),
        ((*TO_RESIDENT[:3], E.DISK_EVICTED), State.HOST),
        ((*TO_RESIDENT[:3], E.DISK_EVICTED, E.HOST_EVICTED, E.DISK_EVICTED), State.ABSENT),
        ((*TO_RESIDENT[:2], E.DISK_EVICTED), State.ABSENT),
        ((*TO_RESIDENT, E.DISK_EVICTED), State.RESIDENT),
        ((E.FETCH, E.FAIL), State.FAILED),
        ((E.FOUND, E.FAIL), State.FAILED),
        ((*TO_RESIDENT[:4], E.FAIL, E.HOST_EVICTED), State.FAILED),
        ((E.FETCH, E.FAIL, E.RETRY), State.ABSENT),
    ],
    ids=lambda value: "-".join(value) or "nothing" if isinstance(value, tuple) else value,
)
def test_events_lead_to_the_state(events: tuple[Event, ...], expected: State) -> None:
    """The nearest tier that has it, or what is being done to it."""
    assert World().run(*events) is expected


@pytest.mark.parametrize(
    ("state", "event"),
    [pair for pair in itertools.product(State, Event) if pair not in TRANSITIONS],
    ids=lambda value: value.value,
)
def test_what_cannot_happen_is_our_own_mistake(state: State, event: Event) -> None:
    """Whatever is not in the table is refused, and changes nothing."""
    world = World()
    path = _path_to(state)
    world.run(*path)

    with pytest.raises(AssertionError):
        world.places.move("d", event)

    assert world.places.state("d") is state


def _path_to(state: State) -> tuple[Event, ...]:
    """Return the shortest way from nothing; every state has one."""
    ways: dict[State, tuple[Event, ...]] = {State.ABSENT: ()}
    while state not in ways:
        for (before, event), after in TRANSITIONS.items():
            if before in ways and after not in ways:
                ways[after] = (*ways[before], event)
    return ways[state]


def test_each_failure_in_a_row_doubles_the_time_to_the_next_attempt() -> None:
    """Up to a limit; until then the error and what is left of the time are told."""
    world = World()
    waits = []
    for _ in range(7):
        world.places.admit("d")
        world.places.move("d", E.FETCH)
        world.places.fail("d", Unavailable("S3 is away"))
        with pytest.raises(Unavailable, match="S3 is away") as caught:
            world.places.admit("d")
        waits.append(caught.value.retry_after_s)
        world.now_s += caught.value.retry_after_s

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_success_makes_failures_forgotten() -> None:
    """The next failure after an answer is the first again."""
    world = World()
    for _ in range(3):
        world.places.retry("d")
        world.places.move("d", E.FETCH)
        world.places.fail("d", Unavailable("away"))
    world.places.retry("d")
    world.run(*TO_RESIDENT, E.UNLOADED, E.HOST_EVICTED, E.DISK_EVICTED, E.FETCH)

    world.places.fail("d", Unavailable("away"))

    with pytest.raises(Unavailable) as caught:
        world.places.admit("d")
    assert caught.value.retry_after_s == 1.0


def test_wrong_artifact_may_be_tried_when_the_registry_says_so() -> None:
    """How long it is refused is decided there; its error is told here as well."""
    world = World()
    world.places.move("d", E.FETCH)
    world.places.fail("d", ArtifactInvalid("its sha256 is wrong", reason="DigestMismatch"))
    failures = world.places.failures()

    world.places.admit("d")

    assert failures == {"d": "ArtifactInvalid: its sha256 is wrong"}
    assert world.places.state("d") is State.ABSENT


def test_failures_that_no_record_names_are_dropped() -> None:
    """What is gone from the registry takes no room here."""
    world = World()
    for digest in ("a", "b"):
        world.places.move(digest, E.FETCH)
        world.places.fail(digest, Unavailable("away"))

    world.places.forget_failures({"b"})

    assert list(world.places.failures()) == ["b"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(Event), max_size=60))
def test_any_trace_of_possible_events_keeps_a_state(trace: list[Event]) -> None:
    """Whatever is possible leads to a state from which a slot can be reached."""
    world = World()
    for event in trace:
        if (world.places.state("d"), event) in TRANSITIONS:
            world.places.move("d", event)

    reachable = {world.places.state("d")}
    for _ in State:
        reachable |= {after for (before, _), after in TRANSITIONS.items() if before in reachable}
    assert State.RESIDENT in reachable
