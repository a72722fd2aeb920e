"""From what happened to each request to the numbers of a run. No I/O.

Definitions are those of docs/glossary.md; every number can be computed again from the rows.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Row:
    """One request; times in seconds from the run's start.

    ``tier`` is where its adapter was when it arrived: slot, host (memory), disk, store, or base
    for a request without one.
    """

    index: int
    adapter: int | None
    tier: str
    input_tokens: int
    arrival_s: float
    token_times_s: list[float]

    @property
    def output_tokens(self) -> int:
        return len(self.token_times_s)

    @property
    def ttft_s(self) -> float:
        return self.token_times_s[0] - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """None for a single token."""
        if self.output_tokens < 2:
            return None
        return (self.token_times_s[-1] - self.token_times_s[0]) / (self.output_tokens - 1)

    @property
    def latency_s(self) -> float:
        return self.token_times_s[-1] - self.arrival_s

    def to_json(self) -> dict[str, Any]:
        derived = {
            "ttft_s": self.ttft_s,
            "tpot_s": self.tpot_s,
            "output_tokens": self.output_tokens,
        }
        return asdict(self) | derived


@dataclass(frozen=True)
class Run:
    """One pass over a workload. ``cpu_s`` is of the system alone, never of its client.

    ``front_cpu_s`` is the part of it that a service spends outside the engine's process.
    """

    rows: list[Row]
    wall_s: float
    cpu_s: float
    front_cpu_s: float | None = None


@dataclass(frozen=True)
class Slo:
    """What a request must keep to count as served well."""

    ttft_s: float
    tpot_s: float

    def is_kept(self, row: Row) -> bool:
        return row.ttft_s <= self.ttft_s and (row.tpot_s or 0.0) <= self.tpot_s


def summarize(run: Run, slo: Slo) -> dict[str, Any]:
    """Return the run's numbers; ``ttft_s`` and ``tpot_s`` are medians."""
    rows = run.rows
    ttft = [r.ttft_s for r in rows]
    tpot = [r.tpot_s for r in rows if r.tpot_s is not None]
    gaps = [g for r in rows for g in np.diff(r.token_times_s).tolist()]
    num_tokens = sum(r.output_tokens for r in rows)
    return {
        "output_tokens_per_s": num_tokens / run.wall_s,
        "total_tokens_per_s": (num_tokens + sum(r.input_tokens for r in rows)) / run.wall_s,
        "requests_per_s": len(rows) / run.wall_s,
        "goodput_requests_per_s": sum(map(slo.is_kept, rows)) / run.wall_s,
        "ttft_s": percentiles(ttft)["p50"],
        "tpot_s": percentiles(tpot)["p50"],
        "ttft_percentiles_s": percentiles(ttft),
        "tpot_percentiles_s": percentiles(tpot),
        "itl_percentiles_s": percentiles(gaps),
        "fairness": fairness(rows),
        "hit_rate": hit_rate(rows),
        "cpu_s_per_token": run.cpu_s / num_tokens,
        "front_cpu_s_per_token": None if run.front_cpu_s is None else run.front_cpu_s / num_tokens,
        "wall_s": run.wall_s,
    }


def percentiles(values: list[float]) -> dict[str, float | None]:
    if not values:
        return {f"p{p}": None for p in PERCENTILES}
    return {f"p{p}": float(np.percentile(values, p)) for p in PERCENTILES}


def fairness(rows: list[Row]) -> float:
    """Return Jain's index over adapters of the mean rate that their requests saw: 1 is even.

    Source: Jain, Chiu, Hawe 1984, DEC-TR-301.
    """
    rates: dict[int | None, list[float]] = {}
    for row in rows:
        rates.setdefault(row.adapter, []).append(row.output_tokens / max(row.latency_s, 1e-9))
    means = [sum(r) / len(r) for r in rates.values()]
    return sum(means) ** 2 / (len(means) * sum(m * m for m in means))


def hit_rate(rows: list[Row]) -> dict[str, float]:
    """Return which part of the requests with an adapter found it at which tier."""
    tiers = Counter(r.tier for r in rows if r.adapter is not None)
    return {tier: count / tiers.total() for tier, count in sorted(tiers.items())}
