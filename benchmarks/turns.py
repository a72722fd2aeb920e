"""Measures several systems turn by turn on the same work, and what they took as one result each.

Neighbours in time share the machine's mood: every ratio is the median over the turns of one turn's
own ratio. No I/O of its own.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import measures
from workload import Request, Workload, build_requests

SHORT_TOKENS = 4


class Target(Protocol):
    """Something that answers requests."""

    def warm_up(self, requests: list[Request]) -> None: ...

    def run(self, requests: list[Request], *, concurrency: int) -> measures.Run: ...


@dataclass(frozen=True)
class Side:
    """One system and its work. ``against`` names the side that its ratio is taken over."""

    target: Target
    workload: Workload
    against: str | None = None


def take(
    sides: dict[str, Side],
    *,
    repeats: int,
    vocabulary_size: int,
    between: Callable[[], None] = lambda: None,
) -> dict[str, list[measures.Run]]:
    """Run all sides ``repeats`` times, in turns; ``between`` is called once, half-way."""

    def run(side: Side, workload: Workload, seed: int) -> measures.Run:
        requests = build_requests(workload, vocabulary_size=vocabulary_size, seed=seed)
        return side.target.run(requests, concurrency=workload.concurrency)

    for side in sides.values():
        work = side.workload
        # Every adapter that any turn will name.
        side.target.warm_up(
            [
                request
                for seed in range(repeats + 1)
                for request in build_requests(work, vocabulary_size=vocabulary_size, seed=seed)
            ]
        )
        run(side, work.shortened(SHORT_TOKENS), 0)
    found: dict[str, list[measures.Run]] = {name: [] for name in sides}
    for repeat in range(repeats):
        if repeat == (repeats + 1) // 2:
            between()
        for name, side in sides.items():
            found[name].append(run(side, side.workload, repeat + 1))
    if repeats == 1:
        between()
    return found


def summarize(
    sides: dict[str, Side], found: dict[str, list[measures.Run]], slo: measures.Slo
) -> dict[str, dict[str, Any]]:
    """Return each side's numbers, medians over its runs, and the rows that they come from."""
    return {name: _summarize(side, name, found, slo) for name, side in sides.items()}


def _summarize(
    side: Side, name: str, found: dict[str, list[measures.Run]], slo: measures.Slo
) -> dict[str, Any]:
    runs = found[name]
    summaries = [measures.summarize(run, slo) for run in runs]
    result = median(summaries) | {"workload": vars(side.workload)}
    result["all_output_tokens_per_s"] = [s["output_tokens_per_s"] for s in summaries]
    result |= {"against": side.against, "ratio": None}
    if side.against is not None:
        result["ratio"] = ratio(found[side.against], runs, "wall_s")
    rows = [(i, row) for i, run in enumerate(runs) for row in run.rows]
    return result | {"requests": [{"repeat": i} | row.to_json() for i, row in rows]}


def ratio(over: list[measures.Run], under: list[measures.Run], name: str) -> float:
    """Return the median of the turns' ratios of a number of each run."""
    return statistics.median(
        getattr(a, name) / getattr(b, name) for a, b in zip(over, under, strict=True)
    )


def median(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return each number's own median, in dictionaries of dictionaries; None where there is none."""
    names = {name: None for summary in summaries for name in summary}
    return {name: _median_of([s.get(name) for s in summaries]) for name in names}


def _median_of(values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    if any(isinstance(value, dict) for value in known):
        return median(known)
    return statistics.median(known) if known else None
