"""Which adapters are worth bringing near before anybody asks. Pure.

The registry's wishes come first; then what is used most, as far as there is free room: a guess never
takes the place of what somebody asked for.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from loraland_core.keys import AdapterRecord

# Fewer decayed uses than this are chance.
MIN_USES = 2.0


@dataclass(frozen=True)
class Wish:
    """An adapter that should be no farther than a tier."""

    adapter_id: str
    tier: Literal["slot", "host", "disk"]
    is_guess: bool = False


@dataclass(frozen=True)
class Room:
    """What is free in each tier."""

    disk_bytes: int
    host_bytes: int


def plan(
    records: Mapping[str, AdapterRecord],
    uses: Mapping[str, float],
    *,
    tier_of: Callable[[str], str],
    is_refused: Callable[[str], bool],
    room: Room,
) -> list[Wish]:
    """Return what is to be brought, in order; what is near enough already is left out."""
    usable = {i: r for i, r in records.items() if not is_refused(i)}
    by_priority = sorted(usable, key=lambda i: (-usable[i].priority, i))
    wishes = [Wish(i, "slot") for i in by_priority if usable[i].pinned]
    wishes += [
        Wish(i, "disk")
        for i in by_priority
        if usable[i].prefetch and tier_of(usable[i].digest) == "absent"
    ]
    asked_for = {wish.adapter_id for wish in wishes}
    ranking = sorted(uses, key=lambda i: (-uses[i], i))
    return wishes + list(
        _guesses(
            (i for i in ranking if i in usable and i not in asked_for), usable, uses, tier_of, room
        )
    )


def _guesses(
    ranking: Iterable[str],
    records: Mapping[str, AdapterRecord],
    uses: Mapping[str, float],
    tier_of: Callable[[str], str],
    room: Room,
) -> Iterable[Wish]:
    disk_bytes, host_bytes = room.disk_bytes, room.host_bytes
    for adapter_id in ranking:
        if uses[adapter_id] < MIN_USES:
            return
        record = records[adapter_id]
        tier = tier_of(record.digest)
        if tier in ("slot", "host"):
            continue
        if tier == "absent":
            disk_bytes -= record.size_bytes
            if disk_bytes < 0:
                return
        host_bytes -= record.size_bytes
        if host_bytes >= 0:
            yield Wish(adapter_id, "host", is_guess=True)
        elif tier == "absent":
            yield Wish(adapter_id, "disk", is_guess=True)
