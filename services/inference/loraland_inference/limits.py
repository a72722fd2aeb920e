"""How much of a replica a tenant may take: requests at a time, requests and tokens a second. Pure.

A rate is a bucket that fills at so much a second and holds ``burst_s`` of it. Tokens are paid when
they are known, so that bucket may fall below zero; it then has to fill up before the next request.
Every replica counts for itself.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from loraland_inference.failures import OverQuota

# When one of a tenant's own requests is likely to have ended.
RETRY_AFTER_S = 1.0
# Sooner makes no sense: a caller's clock and the way to us are not that exact.
MIN_RETRY_S = 0.05


@dataclass(frozen=True)
class Limits:
    """None: no limit of the tenant's own."""

    max_requests: int | None = None
    requests_per_s: float | None = None
    tokens_per_s: float | None = None
    burst_s: float = 10.0


class Bucket:
    """Fills at ``rate_per_s`` up to ``capacity``; starts full."""

    def __init__(self, rate_per_s: float, capacity: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._capacity = capacity
        self._level = capacity
        self._at_s = now_s

    def take(self, amount: float, now_s: float) -> None:
        """Take it out, whether or not it is there."""
        self._level = self.level(now_s) - amount
        self._at_s = now_s

    def level(self, now_s: float) -> float:
        # A clock that stands still or goes back fills nothing.
        elapsed_s = max(0.0, now_s - self._at_s)
        return min(self._capacity, self._level + elapsed_s * self._rate_per_s)

    def wait_s(self, level: float, now_s: float) -> float:
        """Return how long it takes to hold so much; 0 if it does."""
        return max(0.0, (level - self.level(now_s)) / self._rate_per_s)


@dataclass
class _Account:
    """What one tenant has taken."""

    limits: Limits
    requests: Bucket | None
    tokens: Bucket | None
    num_running: int = field(default=0)


class Limiter:
    """The accounts of all tenants."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    @contextmanager
    def admitted(self, tenant: str, limits: Limits, *, generates: bool) -> Iterator[None]:
        """Count a request for as long as it lasts; raise ``OverQuota`` for one too many.

        Only requests that generate have to wait for a bucket of tokens that is empty.
        """
        now_s = self._clock()
        account = self._account(tenant, limits, now_s)
        _check(tenant, account, now_s, generates=generates)
        if account.requests is not None:
            account.requests.take(1, now_s)
        account.num_running += 1
        try:
            yield
        finally:
            account.num_running -= 1

    def charge(self, tenant: str, num_tokens: int) -> None:
        """Take tokens that a request has cost."""
        account = self._accounts.get(tenant)
        if account is not None and account.tokens is not None:
            account.tokens.take(num_tokens, self._clock())

    def retain(self, tenants: Collection[str]) -> None:
        """Forget the accounts of tenants that are no more and run nothing."""
        self._accounts = {
            name: account
            for name, account in self._accounts.items()
            if name in tenants or account.num_running
        }

    def _account(self, tenant: str, limits: Limits, now_s: float) -> _Account:
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = _open(limits, now_s)
        elif account.limits != limits:
            # New limits start with full buckets; what runs goes on counting.
            fresh = _open(limits, now_s)
            account.limits, account.requests, account.tokens = limits, fresh.requests, fresh.tokens
        return account


def _open(limits: Limits, now_s: float) -> _Account:
    def bucket(rate_per_s: float | None) -> Bucket | None:
        if rate_per_s is None:
            return None
        # Less than one request would never be let in.
        return Bucket(rate_per_s, max(1.0, rate_per_s * limits.burst_s), now_s)

    return _Account(limits, bucket(limits.requests_per_s), bucket(limits.tokens_per_s))


def _check(tenant: str, account: _Account, now_s: float, *, generates: bool) -> None:
    most = account.limits.max_requests
    if most is not None and account.num_running >= most:
        raise OverQuota(
            f"tenant {tenant} has {most} requests here, which is its limit; wait for one to end",
            reason="ConcurrencyLimit",
            retry_after_s=RETRY_AFTER_S,
        )
    if account.requests is not None and (wait_s := account.requests.wait_s(1, now_s)):
        raise OverQuota(
            f"tenant {tenant} sends more than {account.limits.requests_per_s:g} requests a second,"
            " its limit; come back later",
            reason="RequestRateLimit",
            retry_after_s=max(MIN_RETRY_S, wait_s),
        )
    if generates and account.tokens is not None and (wait_s := account.tokens.wait_s(0, now_s)):
        raise OverQuota(
            f"tenant {tenant} takes more than {account.limits.tokens_per_s:g} tokens a second, its"
            " limit; come back later",
            reason="TokenRateLimit",
            retry_after_s=max(MIN_RETRY_S, wait_s),
        )
