"""What benchmarks ask for."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from workload import Workload, build_requests

CLOSED = Workload(concurrency=4, num_requests=2000, num_adapters=8, input_tokens=3, output_tokens=5)


def shares(work: Workload) -> list[float]:
    counts = Counter(r.adapter for r in build_requests(work, vocabulary_size=500))
    return sorted((count / work.num_requests for count in counts.values()), reverse=True)


def test_requests_are_reproducible_and_within_the_vocabulary() -> None:
    """The same seed gives the same requests, another one others."""
    first, again, other = (build_requests(CLOSED, vocabulary_size=500, seed=s) for s in (1, 1, 2))

    assert first == again != other
    assert {len(r.token_ids) for r in first} == {3}
    assert max(t for r in first for t in r.token_ids) < 500


@pytest.mark.parametrize(
    ("distribution", "least", "most"),
    [("distinct", 0.125, 0.125), ("uniform", 0.12, 0.16), ("skewed", 0.5, 0.57)],
)
def test_busiest_adapter_gets_its_share(distribution: str, least: float, most: float) -> None:
    """The power law with exponent 0.3 gives the first of 8 adapters (1/8) ** 0.3 = 54 %."""
    assert least <= shares(replace(CLOSED, distribution=distribution))[0] <= most


def test_base_requests_name_no_adapter() -> None:
    """Without adapters every request is the base model's."""
    requests = build_requests(replace(CLOSED, num_adapters=0), vocabulary_size=500)

    assert {r.adapter for r in requests} == {None}


@pytest.mark.parametrize("burstiness", [1.0, 2.0])
def test_open_loop_keeps_its_rate_and_its_burstiness(burstiness: float) -> None:
    """Gaps between arrivals have the mean and the coefficient of variation asked for."""
    work = replace(CLOSED, rate=10.0, burstiness=burstiness)

    arrivals = [r.arrival_s for r in build_requests(work, vocabulary_size=500)]
    gaps = np.diff(np.array(arrivals, dtype=float))
    assert gaps.mean() == pytest.approx(0.1, rel=0.15)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness, rel=0.15)
