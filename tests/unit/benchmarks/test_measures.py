"""The numbers of a benchmark, computed by hand from a few rows."""

import measures
import pytest
from measures import Row, Run, Slo

FAST = Row(0, 0, "slot", 10, 1.0, [1.5, 1.7, 1.9])
SLOW = Row(1, 1, "disk", 10, 1.0, [3.0, 3.5, 4.0])
BASE = Row(2, None, "base", 10, 0.0, [0.5])


def test_latencies_follow_the_glossary() -> None:
    """TTFT counts from arrival; TPOT is the mean gap after the first token, none for one token."""
    found = [(row.ttft_s, row.tpot_s, row.latency_s) for row in (FAST, SLOW, BASE)]

    assert found == [
        (0.5, pytest.approx(0.2), pytest.approx(0.9)),
        (2.0, pytest.approx(0.5), 3.0),
        (0.5, None, 0.5),
    ]


def test_summary_counts_what_was_served_well() -> None:
    """Goodput counts the requests that kept both limits; throughput all of their tokens."""
    summary = measures.summarize(Run([FAST, SLOW, BASE], 4.0, 2.0), Slo(1.0, 0.3))

    found = {name: summary[name] for name in ("output_tokens_per_s", "goodput_requests_per_s")}
    assert found == {"output_tokens_per_s": 7 / 4, "goodput_requests_per_s": 2 / 4}
    assert summary["ttft_s"] == 0.5
    assert summary["cpu_s_per_token"] == pytest.approx(2 / 7)
    assert summary["itl_percentiles_s"]["p50"] == pytest.approx(0.35)


def test_hit_rate_leaves_requests_without_an_adapter_out() -> None:
    """Tiers are parts of the requests that named an adapter."""
    assert measures.hit_rate([FAST, SLOW, BASE]) == {"disk": 0.5, "slot": 0.5}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([FAST, FAST], 1.0), ([FAST, SLOW], (10 / 3 + 1) ** 2 / (2 * ((10 / 3) ** 2 + 1)))],
    ids=["one adapter", "one fast, one slow"],
)
def test_fairness_is_jains_index_of_rates(rows: list[Row], expected: float) -> None:
    """1 where all adapters get the same rate, less the more they differ."""
    assert measures.fairness(rows) == pytest.approx(expected)
