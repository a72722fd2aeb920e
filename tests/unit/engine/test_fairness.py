"""Whose turn it is: counters, weights, priorities and what comes back after a rest."""

import pytest
from loraland_engine.fairness import FairQueue
from loraland_engine.sequence import Caller, SamplingParams, Sequence


class Line:
    """A queue, and a short way to fill it and to serve from it."""

    def __init__(self) -> None:
        self.queue = FairQueue(lift_after_s=10.0)
        self._count = 0

    def add(
        self, account: str, *, weight: float = 1.0, priority: int = 0, at_s: float = 0.0
    ) -> None:
        self._count += 1
        sequence = Sequence(
            f"{account}{self._count}", [1], SamplingParams(), at_s,
            account=account, caller=Caller(weight=weight, priority=priority), order=self._count,
        )  # fmt: skip
        self.queue.push(sequence)

    def serve(self, cost: float = 1.0, *, now_s: float = 0.0) -> str:
        sequence = self.queue.peek(now_s)
        assert sequence is not None
        self.queue.pop(sequence, now_s)
        self.queue.charge(sequence, cost)
        return sequence.request_id


def test_queue_alternates_between_accounts_when_one_asks_for_more() -> None:
    """Five requests of one account do not go before the only ones of others."""
    line = Line()
    for account in ["a", "a", "a", "a", "b", "c"]:
        line.add(account)

    served = [line.serve() for _ in range(6)]

    assert served == ["a1", "b5", "c6", "a2", "a3", "a4"]


def test_queue_serves_by_work_and_not_by_requests() -> None:
    """An account with requests of ten times the work gets a tenth of the turns."""
    line = Line()
    for _ in range(11):
        line.add("long")
        line.add("short")

    served = [line.serve(10.0 if line.queue.counter("long") == 0 else 1.0) for _ in range(11)]

    assert [name[0] for name in served] == ["l"] + ["s"] * 10


def test_queue_gives_an_account_twice_the_work_when_its_weight_is_two() -> None:
    """Weights are shares."""
    line = Line()
    for _ in range(20):
        line.add("double", weight=2.0)
        line.add("single")

    served = [line.serve() for _ in range(15)]

    assert sum(name.startswith("double") for name in served) == 10


def test_queue_gives_no_credit_for_a_rest() -> None:
    """One that comes back starts at the level of those who stayed."""
    line = Line()
    for _ in range(10):
        line.add("busy")
    for second in range(5):
        line.serve(100.0, now_s=second)
    line.add("rested")
    line.add("rested")

    served = [line.serve(100.0, now_s=5 + second)[0] for second in range(4)]

    assert served == ["r", "b", "r", "b"]


def test_queue_holds_nothing_against_who_was_alone() -> None:
    """Work that nobody else wanted leaves a newcomer level with whoever did it."""
    line = Line()
    line.add("alone")
    line.serve(100.0)
    for account in ("new", "alone", "new", "alone"):
        line.add(account)

    served = [line.serve()[0] for _ in range(4)]

    assert served == ["n", "a", "n", "a"]


@pytest.mark.parametrize(
    ("now_s", "expected"), [(9.9, "high"), (10.0, "low")], ids=["in-time", "overdue"]
)
def test_queue_prefers_a_priority_until_another_is_overdue(now_s: float, expected: str) -> None:
    """A high priority goes first, but not for ever."""
    line = Line()
    line.add("low", priority=-5)
    for _ in range(3):
        line.add("high", priority=5)
    line.serve(50.0, now_s=5.0)

    assert line.serve(now_s=now_s).rstrip("1234") == expected


def test_queue_orders_one_account_by_priority_and_arrival() -> None:
    """Within an account the counter says nothing."""
    line = Line()
    for priority in (0, 3, 0, 3):
        line.add("a", priority=priority)

    assert [line.serve() for _ in range(4)] == ["a2", "a4", "a1", "a3"]


def test_reset_forgets_what_was_served() -> None:
    """With nobody there, nobody is owed anything."""
    line = Line()
    line.add("a")
    line.serve(100.0)

    line.queue.reset()
    line.add("a")
    line.add("b")

    assert [line.serve(), line.serve()] == ["a2", "b3"]
