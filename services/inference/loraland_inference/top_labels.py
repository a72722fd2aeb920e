"""Which names get a label of their own in metrics: those used most of late. Pure; time is passed in.

Prometheus keeps a series for every label that it ever saw, so that thousands of adapters must not
have one each. ``label`` returns the name itself for at most ``most`` names, and ``OTHER`` for all
else. Who has a label loses it only to a name that is used clearly more.
"""

from collections.abc import Callable

OTHER = "other"
# Use fades: half of it counts after so long.
HALF_LIFE_S = 600.0
# A newcomer must be used so many times as much, so that two names do not take turns.
ADVANTAGE = 1.5
# Names without a label are watched too, so many for each that has one.
WATCHED_PER_LABEL = 8


class TopLabels:
    """The names in use. ``on_drop`` hears of a name that loses its label, to remove its series."""

    def __init__(self, most: int, *, on_drop: Callable[[str], None] = lambda _: None) -> None:
        self._most = most
        self._on_drop = on_drop
        # Weights are as of the origin: younger uses weigh more, and none has to be aged.
        self._weights: dict[str, float] = {}
        self._labelled: set[str] = set()
        self._origin_s: float | None = None

    def label(self, name: str, now_s: float) -> str:
        """Count a use of the name; return its label."""
        if self._most == 0:
            return OTHER
        self._weights[name] = self._weights.get(name, 0.0) + self._weight(now_s)
        if name not in self._labelled:
            self._admit(name)
        self._bound()
        return name if name in self._labelled else OTHER

    def forget(self, name: str) -> None:
        """Give up a name that is no more."""
        self._weights.pop(name, None)
        if name in self._labelled:
            self._labelled.discard(name)
            self._on_drop(name)

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(self._labelled)

    def _weight(self, now_s: float) -> float:
        """Return what a use weighs now."""
        if self._origin_s is None:
            self._origin_s = now_s
        halvings = (now_s - self._origin_s) / HALF_LIFE_S
        if halvings > 64:
            # Before numbers grow out of what a float tells apart.
            scale = 2.0**-halvings
            self._weights = {n: w * scale for n, w in self._weights.items()}
            self._origin_s, halvings = now_s, 0.0
        return float(2.0**halvings)

    def _admit(self, name: str) -> None:
        if len(self._labelled) < self._most:
            self._labelled.add(name)
            return
        least = min(self._labelled, key=self._weights.__getitem__)
        if self._weights[name] > ADVANTAGE * self._weights[least]:
            self._labelled.remove(least)
            self._labelled.add(name)
            self._on_drop(least)

    def _bound(self) -> None:
        """Forget the least used of those without a label when there are too many."""
        if len(self._weights) > self._most * (1 + WATCHED_PER_LABEL):
            waiting = sorted(
                (n for n in self._weights if n not in self._labelled),
                key=self._weights.__getitem__,
            )
            for name in waiting[: len(waiting) // 2]:
                del self._weights[name]
