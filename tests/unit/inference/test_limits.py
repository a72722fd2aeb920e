"""Limits of tenants: who is let in, who has to wait and for how long. Time is given."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loraland_inference.failures import OverQuota
from loraland_inference.limits import Limiter, Limits


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ask(limiter: Limiter, limits: Limits, tenant: str = "a", *, generates: bool = True) -> str:
    """Return why a request is refused; nothing if it is let in."""
    try:
        with limiter.admitted(tenant, limits, generates=generates):
            return ""
    except OverQuota as error:
        return f"{error.reason} {error.retry_after_s:g}"


def test_as_many_requests_run_as_a_tenant_may_have(clock: Clock) -> None:
    """One that ends makes room; another tenant has its own."""
    limiter, limits = Limiter(clock), Limits(max_requests=2)
    with ExitStack() as running:
        for _ in range(2):
            running.enter_context(limiter.admitted("a", limits, generates=True))
        full, other = ask(limiter, limits), ask(limiter, limits, "b")

    assert (full, other, ask(limiter, limits)) == ("ConcurrencyLimit 1", "", "")


def test_requests_a_second_are_let_in_after_a_burst(clock: Clock) -> None:
    """Two a second, ten seconds' worth at once, then one each half second."""
    limiter, limits = Limiter(clock), Limits(requests_per_s=2.0)
    burst = [ask(limiter, limits) for _ in range(21)]
    clock.now_s += 0.5
    after = [ask(limiter, limits) for _ in range(2)]

    assert burst == [""] * 20 + ["RequestRateLimit 0.5"]
    assert after == ["", "RequestRateLimit 0.5"]


def test_refused_requests_cost_nothing(clock: Clock) -> None:
    """Whoever asks too often is not punished by waiting longer."""
    limiter, limits = Limiter(clock), Limits(requests_per_s=1.0, burst_s=1.0)
    answers = [ask(limiter, limits) for _ in range(50)]
    clock.now_s += 1.0

    assert answers == ["", *["RequestRateLimit 1"] * 49]
    assert ask(limiter, limits) == ""


def test_tokens_are_paid_afterwards_and_waited_for(clock: Clock) -> None:
    """A request that cost more than was left makes the next one wait until it is paid for."""
    limiter, limits = Limiter(clock), Limits(tokens_per_s=100.0, burst_s=1.0)
    first = ask(limiter, limits)
    limiter.charge("a", 400)
    refused = ask(limiter, limits)
    listing = ask(limiter, limits, generates=False)
    clock.now_s += 3.0

    assert (first, refused, listing) == ("", "TokenRateLimit 3", "")
    assert ask(limiter, limits) == ""


def test_new_limits_hold_from_the_next_request_on(clock: Clock) -> None:
    """What runs already counts against them."""
    limiter = Limiter(clock)
    with limiter.admitted("a", Limits(), generates=True):
        full = ask(limiter, Limits(max_requests=1))

    assert full == "ConcurrencyLimit 1"


def test_accounts_of_tenants_that_are_gone_are_forgotten(clock: Clock) -> None:
    """But not while they run something."""
    limiter, limits = Limiter(clock), Limits(max_requests=1)
    ask(limiter, limits, "idle")
    with limiter.admitted("busy", limits, generates=True):
        limiter.retain({"other"})
        kept = sorted(limiter._accounts)

    assert kept == ["busy"]


@given(
    rate_per_s=st.floats(0.1, 1000),
    burst_s=st.floats(1, 60),
    gaps_s=st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
def test_no_more_requests_than_the_rate_and_one_burst(
    rate_per_s: float, burst_s: float, gaps_s: list[float]
) -> None:
    """Whatever the pattern, what is let in stays below the line of the bucket."""
    clock = Clock()
    limiter, limits = Limiter(clock), Limits(requests_per_s=rate_per_s, burst_s=burst_s)
    num_admitted, started_s = 0, clock.now_s
    for gap_s in gaps_s:
        clock.now_s += gap_s
        num_admitted += sum(ask(limiter, limits) == "" for _ in range(20))

    most = max(1.0, rate_per_s * burst_s) + (clock.now_s - started_s) * rate_per_s
    assert num_admitted <= most + 1e-6


@given(costs=st.lists(st.integers(0, 5000), min_size=1, max_size=60))
def test_tokens_over_time_stay_at_the_rate(costs: list[int]) -> None:
    """Whoever waits as told gets in, and takes no more than its rate beside one burst and one debt."""
    clock = Clock()
    limits = Limits(tokens_per_s=100.0, burst_s=10.0)
    limiter, started_s, taken = Limiter(clock), clock.now_s, 0
    for cost in costs:
        taken += _spend_when_allowed(limiter, limits, cost, clock)

    assert taken - costs[-1] <= 1000 + (clock.now_s - started_s) * 100 + 1e-6


def _spend_when_allowed(limiter: Limiter, limits: Limits, cost: int, clock: Clock) -> int:
    wait: Callable[[str], float] = lambda text: float(text.split()[1])  # noqa: E731
    while refusal := ask(limiter, limits):
        clock.now_s += wait(refusal) + 1e-6
    limiter.charge("a", cost)
    return cost
