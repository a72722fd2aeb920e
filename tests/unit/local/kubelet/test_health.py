"""Probe results and crash pauses."""

import pytest
from loraland_local.kubelet.backoff import CrashBackoff
from loraland_local.kubelet.health import Tracker


@pytest.mark.parametrize(
    ("thresholds", "results", "expected"),
    [
        pytest.param((1, 3), "FFF", "..U", id="fails-after-three"),
        pytest.param((1, 3), "FFSFF", "..H..", id="a-success-starts-the-count-again"),
        pytest.param((2, 1), "SFSS", ".U.H", id="recovers-after-two"),
    ],
)
def test_tracker_follows_runs_of_results(
    thresholds: tuple[int, int], results: str, expected: str
) -> None:
    """Health changes only after as many equal results in a row as asked for."""
    tracker = Tracker(True, *thresholds)
    found = ""
    for result in results:
        is_decided = tracker.observe(result == "S")
        found += ("H" if tracker.is_healthy else "U") if is_decided else "."

    assert found == expected


def test_crash_pauses_double_up_to_a_limit() -> None:
    """The first restart is immediate, later ones wait ever longer, at most five minutes."""
    backoff = CrashBackoff(10)

    assert [backoff.next_s(1) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_long_run_is_forgiven() -> None:
    """A container that ran for ten minutes starts over without a pause."""
    backoff = CrashBackoff(10)
    for _ in range(3):
        backoff.next_s(1)

    assert [backoff.next_s(600), backoff.next_s(1)] == [0, 10]
