"""Who is served next: virtual token counters by account. No torch, no I/O; time is passed in.

An account is what is treated as one customer: an adapter, as one tenant uses it. Each carries a
counter of the work that was done for it, divided by its weight, and among those that wait the lowest
counter goes first: whoever asks for more than a share waits, and nobody else because of it. One that
comes back after a rest starts at the level of the others, so that a rest is no credit.

Priority comes before the counter. So that a low one does not starve, an account that got nothing for
``lift_after_s`` is treated like the highest that waits: beside those it is again the counter that
decides, so that under load, when everybody waits so long, shares stay what the weights say.

Source: Sheng et al. 2024, Fairness in Serving Large Language Models, arXiv:2401.00588.
"""

import bisect
import math
from dataclasses import dataclass, field

from loraland_engine.sequence import Sequence

# What a token costs: an output token occupies a step, input tokens share one.
INPUT_COST = 1.0
OUTPUT_COST = 2.0


@dataclass(eq=False)
class _Account:
    counter: float = 0.0
    # When it was last given something.
    served_s: float = -math.inf
    # Sorted: the highest priority first, and within one the order of arrival.
    waiting: list[Sequence] = field(default_factory=list)

    @property
    def head(self) -> Sequence:
        return self.waiting[0]


def _place(sequence: Sequence) -> tuple[int, int]:
    return -sequence.caller.priority, sequence.order


class FairQueue:
    """The waiting sequences and the counters of their accounts."""

    def __init__(self, *, lift_after_s: float) -> None:
        self._lift_after_s = lift_after_s
        self._accounts: dict[str, _Account] = {}
        # Whoever was the last to have nothing waiting any more.
        self._last = _Account()

    def __len__(self) -> int:
        return sum(len(a.waiting) for a in self._accounts.values())

    def push(self, sequence: Sequence) -> None:
        account = self._accounts.setdefault(sequence.account, _Account())
        if not account.waiting:
            account.counter = max(account.counter, self._level())
        bisect.insort(account.waiting, sequence, key=_place)

    def peek(self, now_s: float) -> Sequence | None:
        """Return whose turn it is; None if nobody waits."""
        accounts = [a for a in self._accounts.values() if a.waiting]
        if not accounts:
            return None
        highest = max(a.head.caller.priority for a in accounts)
        return min(accounts, key=lambda a: self._turn(a, highest, now_s)).head

    def pop(self, sequence: Sequence, now_s: float) -> None:
        """Take out a sequence whose turn it is."""
        self.remove(sequence)
        self._accounts[sequence.account].served_s = now_s

    def remove(self, sequence: Sequence) -> None:
        account = self._accounts[sequence.account]
        index = bisect.bisect_left(account.waiting, _place(sequence), key=_place)
        assert account.waiting.pop(index) is sequence, sequence.request_id
        if not account.waiting:
            self._last = account

    def charge(self, sequence: Sequence, cost: float) -> None:
        """Note work that is done for a sequence's account."""
        self._accounts[sequence.account].counter += cost / sequence.caller.weight

    def counter(self, account: str) -> float:
        return self._accounts[account].counter

    def reset(self) -> None:
        """Forget what was done: with nobody there, nobody was kept from anything."""
        assert not len(self)
        self._accounts.clear()
        self._last = _Account()

    def _level(self) -> float:
        """Return where an account that begins to wait starts at least."""
        counters = (a.counter for a in self._accounts.values() if a.waiting)
        return min(counters, default=self._last.counter)

    def _turn(self, account: _Account, highest: int, now_s: float) -> tuple[int, float, float, int]:
        head = account.head
        is_overdue = now_s - max(head.arrived_s, account.served_s) >= self._lift_after_s
        priority = highest if is_overdue else head.caller.priority
        return -priority, account.counter, account.served_s, head.order
