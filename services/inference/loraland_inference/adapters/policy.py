"""What a tier of limited size keeps. Pure; time is passed in.

Whoever has to go is what costs least to be without: its decayed use times what it took to bring it
here, for each byte that it takes. What is in use or pinned stays, even over the budget, and goes as
soon as it may.

Source of the measure: Cherkasova 1998, GreedyDual-Size-Frequency, with decay in place of inflation.
"""

from dataclasses import dataclass

# A use is worth half as much this much later.
HALF_LIFE_S = 600.0
# Whatever a clock says, nothing comes for free.
MIN_LOAD_S = 0.001


@dataclass(eq=False)
class Holding:
    """What a tier has of one artifact. ``load_s`` is what it took to bring it here."""

    digest: str
    size_bytes: int
    load_s: float
    used_at_s: float
    use: float = 1.0
    references: int = 0
    is_pinned: bool = False

    def touch(self, now_s: float) -> None:
        """Note one more use."""
        self.use = decayed(self.use, now_s - self.used_at_s) + 1.0
        self.used_at_s = now_s

    def worth(self, now_s: float) -> float:
        """Return the seconds of loading that keeping a byte of it is likely to save."""
        use = decayed(self.use, now_s - self.used_at_s)
        return use * max(MIN_LOAD_S, self.load_s) / max(1, self.size_bytes)


def decayed(use: float, age_s: float) -> float:
    return float(use * 0.5 ** (max(0.0, age_s) / HALF_LIFE_S))


class Ledger:
    """What one tier holds, against its budget."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._holdings: dict[str, Holding] = {}

    @property
    def used_bytes(self) -> int:
        return sum(h.size_bytes for h in self._holdings.values())

    @property
    def free_bytes(self) -> int:
        return max(0, self.budget_bytes - self.used_bytes)

    @property
    def digests(self) -> set[str]:
        return set(self._holdings)

    def find(self, digest: str) -> Holding | None:
        return self._holdings.get(digest)

    def add(self, digest: str, *, size_bytes: int, load_s: float, now_s: float) -> Holding:
        assert digest not in self._holdings, digest
        holding = self._holdings[digest] = Holding(digest, size_bytes, load_s, now_s)
        return holding

    def remove(self, digest: str) -> None:
        self._holdings.pop(digest, None)

    def victims(self, incoming_bytes: int, now_s: float) -> list[Holding]:
        """Return what has to go before so much comes; as much as may go where that is too little."""
        excess_bytes = self.used_bytes + incoming_bytes - self.budget_bytes
        chosen: list[Holding] = []
        for holding in sorted(self._evictable(), key=lambda h: (h.worth(now_s), h.used_at_s)):
            if excess_bytes <= 0:
                break
            chosen.append(holding)
            excess_bytes -= holding.size_bytes
        # A large one at the end may make some of the small ones before it unnecessary.
        for holding in reversed(chosen[:-1]):
            if excess_bytes + holding.size_bytes <= 0:
                chosen.remove(holding)
                excess_bytes += holding.size_bytes
        return chosen

    def _evictable(self) -> list[Holding]:
        return [h for h in self._holdings.values() if not h.references and not h.is_pinned]
