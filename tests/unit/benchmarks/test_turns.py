"""Systems take turns, and their numbers are medians."""

from dataclasses import dataclass, field

import pytest
import turns
from measures import Row, Run, Slo
from turns import Side
from workload import Request, Workload

WORK = Workload(concurrency=2, num_requests=2, num_adapters=0, input_tokens=3, output_tokens=9)


@dataclass
class FakeTarget:
    """Answers in ``wall_s`` a run, and notes who was asked when."""

    name: str
    wall_s: float
    log: list[tuple[str, int]] = field(default_factory=list)

    def warm_up(self, requests: list[Request]) -> None:
        self.log.append((self.name, 0))

    def run(self, requests: list[Request], *, concurrency: int) -> Run:
        self.log.append((self.name, requests[0].output_tokens))
        rows = [Row(r.index, r.adapter, "base", 3, 0.0, [0.5, 1.0]) for r in requests]
        return Run(rows, self.wall_s, self.wall_s / 2)


@pytest.mark.parametrize(
    ("values", "expected"), [([1.0, 9.0], 5.0), ([9.0, 1.0, 2.0], 2.0)], ids=["even", "odd"]
)
def test_median_takes_each_number_by_itself(values: list[float], expected: float) -> None:
    """Of an even count it is the mean of the two in the middle; what is missing is left out."""
    summaries = [{"a": v, "deep": {"b": -v, "c": None}} for v in values]

    assert turns.median(summaries) == {"a": expected, "deep": {"b": -expected, "c": None}}


def test_sides_take_turns_and_peers_run_half_way() -> None:
    """Each repetition runs every side; what comes between comes once."""
    log: list[tuple[str, int]] = []
    sides = {name: Side(FakeTarget(name, 1.0, log), WORK) for name in ("x", "y")}

    turns.take(sides, repeats=4, vocabulary_size=500, between=lambda: log.append(("peers", 0)))
    warm_up = [("x", 0), ("x", 4), ("y", 0), ("y", 4)]
    turn = [("x", 9), ("y", 9)]
    assert log == [*warm_up, *turn, *turn, ("peers", 0), *turn, *turn]


def test_ratio_is_throughput_over_the_other_sides() -> None:
    """Twice as fast as what it took turns with is a ratio of two."""
    sides = {
        "engine, base": Side(FakeTarget("base", 4.0), WORK),
        "engine": Side(FakeTarget("own", 2.0), WORK, against="engine, base"),
    }
    found = turns.take(sides, repeats=3, vocabulary_size=500)

    described = turns.summarize(sides, found, Slo(1.0, 1.0))
    assert (described["engine"]["ratio"], described["engine, base"]["ratio"]) == (2.0, None)
    assert len(described["engine"]["requests"]) == 3 * WORK.num_requests
