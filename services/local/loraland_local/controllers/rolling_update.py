"""How many replicas each ReplicaSet of a Deployment should have next. Pure, no I/O.

Source: the arithmetic of Kubernetes' own deployment controller.
"""

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Replicas:
    """One ReplicaSet: the number asked for, existing, and available."""

    spec: int
    existing: int
    available: int


def resolve(value: int | str, total: int, *, round_up: bool) -> int:
    """Return a number of pods from a number or a percentage."""
    if isinstance(value, int):
        return value
    share = total * int(value.removesuffix("%")) / 100
    return math.ceil(share) if round_up else math.floor(share)


def bounds(max_surge: int | str, max_unavailable: int | str, desired: int) -> tuple[int, int]:
    """Return (surge, unavailable) in pods; both zero would never get anywhere."""
    surge = resolve(max_surge, desired, round_up=True)
    unavailable = resolve(max_unavailable, desired, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, desired)


def grow_new(desired: int, new: int, old: Sequence[Replicas], *, surge: int) -> int:
    """Return the next size of the newest set."""
    if new >= desired:
        return desired
    room = desired + surge - new - sum(replicas.spec for replicas in old)
    return new + min(max(room, 0), desired - new)


def shrink_old(
    desired: int, new: Replicas, old: Sequence[Replicas], *, unavailable: int
) -> list[int]:
    """Return the next sizes of the older sets, oldest first: broken pods go first."""
    sizes = [replicas.spec for replicas in old]
    min_available = desired - unavailable
    new_unavailable = max(new.spec - new.available, 0)
    budget = sum(sizes) + new.spec - min_available - new_unavailable
    for position, replicas in enumerate(old):
        cut = min(max(budget, 0), max(replicas.spec - replicas.available, 0))
        sizes[position] -= cut
        budget -= cut
    num_available = new.available + sum(replicas.available for replicas in old)
    budget = max(num_available - min_available, 0)
    for position, size in enumerate(sizes):
        cut = min(size, budget)
        sizes[position] -= cut
        budget -= cut
    return sizes
