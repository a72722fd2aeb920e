"""Which artifacts hold the engine's slots, and which gives way. Pure; time is passed in.

An artifact in use is never evicted, a pinned one only when it is unpinned. Whoever waits longest for
a slot gets the next one; when nothing becomes free by itself, an artifact is drained: requests that
come for it from then on wait in their turn, so that no adapter starves outside.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loraland_inference.adapters import policy

if TYPE_CHECKING:
    from loraland_inference.adapters.host import PackedAdapter


@dataclass(eq=False)
class Slot:
    """One slot taken by one artifact. ``references`` counts requests that use it or wait for it.

    ``num_due_tokens`` is what those that run may still come to; ``use`` is decayed, as of
    ``last_used_s``.
    """

    digest: str
    last_used_s: float
    size_bytes: int = 0
    use: float = 1.0
    references: int = 0
    num_due_tokens: int = 0
    is_loaded: bool = False
    is_draining: bool = False
    # What it was filled from, held in the host tier meanwhile.
    packed: "PackedAdapter | None" = None

    def worth(self, now_s: float) -> float:
        return policy.decayed(self.use, now_s - self.last_used_s)


@dataclass
class SlotTable:
    """The slots by digest."""

    num_slots: int
    # For all of them together; 0 leaves it to their number.
    budget_bytes: int = 0
    pinned: set[str] = field(default_factory=set)
    _slots: dict[str, Slot] = field(default_factory=dict)

    @property
    def num_free(self) -> int:
        return self.num_slots - len(self._slots)

    @property
    def loaded_slots(self) -> list[Slot]:
        return [s for s in self._slots.values() if s.is_loaded]

    @property
    def loaded(self) -> list[str]:
        return [s.digest for s in self.loaded_slots]

    def find(self, digest: str) -> Slot | None:
        return self._slots.get(digest)

    def has_room(self, size_bytes: int) -> bool:
        """Whether one more fits; one alone always does."""
        used_bytes = sum(s.size_bytes for s in self._slots.values())
        is_within = not self.budget_bytes or used_bytes + size_bytes <= self.budget_bytes
        return self.num_free > 0 and (is_within or not self._slots)

    def take(self, digest: str, now_s: float, *, size_bytes: int = 0) -> Slot:
        assert self.has_room(size_bytes), digest
        assert digest not in self._slots, digest
        slot = self._slots[digest] = Slot(digest, last_used_s=now_s, size_bytes=size_bytes)
        return slot

    def release(self, slot: Slot, now_s: float) -> None:
        """Drop one reference; the slot may have been lost meanwhile."""
        assert slot.references > 0, slot
        slot.references -= 1
        slot.use = slot.worth(now_s) + 1.0
        slot.last_used_s = now_s

    def remove(self, slot: Slot) -> None:
        if self._slots.get(slot.digest) is slot:
            del self._slots[slot.digest]

    def clear(self) -> list[Slot]:
        """Forget everything, and return it: the engine that held it is gone."""
        slots, self._slots = list(self._slots.values()), {}
        return slots

    def victim(self, now_s: float) -> Slot | None:
        """Return the loaded, unused, unpinned artifact that was used least, and least lately."""
        idle = [s for s in self._evictable() if s.references == 0]
        return min(
            idle, key=lambda s: (not s.is_draining, s.worth(now_s), s.last_used_s), default=None
        )

    def start_drain(self) -> Slot | None:
        """Choose the artifact to give way to whoever waits: the one with the least left to do."""
        candidates = self._evictable()
        if any(s.is_draining for s in candidates):
            return None
        slot = min(
            candidates, key=lambda s: (s.num_due_tokens, s.references, s.last_used_s), default=None
        )
        if slot is not None:
            slot.is_draining = True
        return slot

    def _evictable(self) -> list[Slot]:
        return [s for s in self._slots.values() if s.is_loaded and s.digest not in self.pinned]
