"""Which replica shall answer a request: a pure function of what the replicas said last. No I/O.

A request goes where its adapter is resident. Where it is nowhere, rendezvous hashing picks the same
replica for it from every client, so that the adapters divide the slots of all replicas among them and
few of them move when a replica comes or goes. Neither may load a replica beyond its share: whatever
is over the bound goes to the next one in the order, which is how a busy adapter gets a second home.

Sources: Thaler and Ravishankar 1998 (rendezvous hashing); Mirrokni, Thorup, Zadimoghaddam 2018,
arXiv:1608.01350 (consistent hashing with bounded loads).
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loraland_core.keys import Heartbeat, Residency

# A replica takes at most this many times the mean load. The paper's ε is 0.25: 1.25 times.
BALANCE = 1.25
SLOT_TIERS = frozenset({"slot", "loading"})


@dataclass(frozen=True)
class Replica:
    """A replica as it was seen last. ``name`` is what is hashed, so it must outlive restarts.

    ``load`` is how many requests it has, running or waiting. ``is_down`` is a caller's own
    experience: it did not answer a moment ago.
    """

    name: str
    load: int = 0
    resident: frozenset[str] = frozenset()
    rejected: frozenset[str] = frozenset()
    is_draining: bool = False
    is_down: bool = False


def order(
    adapter_id: str, replicas: Iterable[Replica], *, balance: float = BALANCE
) -> list[Replica]:
    """Return all replicas, the best one first; whoever fails at one takes the next.

    Resident and within the bound; within the bound; over the bound, the least loaded first; then
    those that refuse the adapter, that drain, and that do not answer. The empty id is the base
    model, which is resident everywhere.
    """
    assert balance > 1, balance
    given = sorted(replicas, key=lambda r: r.name)
    able = [r for r in given if _is_able(adapter_id, r)]
    bound = load_bound(able, balance)

    def rank(replica: Replica) -> tuple[float, ...]:
        affinity = -score(adapter_id, replica.name)
        is_over = replica.load + 1 > bound
        if not _is_able(adapter_id, replica):
            faults = (replica.is_down, replica.is_draining, adapter_id in replica.rejected)
            return (3, *faults, affinity)
        if is_over:
            return (2, replica.load, affinity)
        if not adapter_id:
            return (0, replica.load, affinity)
        return (0 if adapter_id in replica.resident else 1, affinity)

    return sorted(given, key=rank)


def load_bound(replicas: Sequence[Replica], balance: float = BALANCE) -> int:
    """Return how many requests a replica may have once the next one is placed."""
    total = sum(r.load for r in replicas) + 1
    return math.ceil(balance * total / len(replicas)) if replicas else 0


def score(adapter_id: str, replica: str) -> int:
    """Return the weight of a pair; an adapter's home is the replica with the largest."""
    digest = hashlib.blake2b(f"{adapter_id}\n{replica}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)


def read(beat: Heartbeat, residency: Residency | None) -> Replica:
    """Return a replica as its heartbeat and its residency in Redis tell."""
    held = residency.adapters.items() if residency else ()
    return Replica(
        name=beat.replica,
        load=beat.queue_depth,
        resident=frozenset(i for i, r in held if r.tier in SLOT_TIERS),
        rejected=frozenset(beat.rejected),
        is_draining=beat.draining,
    )


def _is_able(adapter_id: str, replica: Replica) -> bool:
    is_refused = adapter_id in replica.rejected
    return not (is_refused or replica.is_draining or replica.is_down)
