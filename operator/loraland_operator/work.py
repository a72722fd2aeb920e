"""The operator's queue of work: what is counted, timed and logged around each reconciliation."""

import itertools
from collections.abc import Mapping
from contextlib import AbstractContextManager

from loraland_core import logs, names

from loraland_operator import metrics
from loraland_operator.mirror import Key, Mirror
from loraland_operator.workqueue import Reconcile, Workqueue


def build_queue(
    reconcilers: Mapping[str, Reconcile[Key]], mirror: Mirror, *, num_workers: int
) -> Workqueue[Key]:
    """Return a queue that hands each key to the reconciler of its kind.

    Whatever is logged meanwhile has the object, as kubectl would name it, and the number of this
    look at it among all of this process.
    """
    numbers = itertools.count(1)

    async def reconcile(key: Key) -> float | None:
        with metrics.observed(key.kind):
            return await reconcilers[key.kind](key)

    def scope(key: Key) -> AbstractContextManager[None]:
        return logs.bound(object=_reference(key, mirror), reconcile=next(numbers))

    queue = Workqueue(reconcile, num_workers=num_workers, scope=scope)
    metrics.QUEUE.set_function(queue.__len__)
    metrics.show_phases(mirror)
    return queue


def _reference(key: Key, mirror: Mirror) -> dict[str, str]:
    obj = mirror.find(*key)
    return {
        "apiVersion": names.API_VERSION,
        "kind": key.kind,
        "namespace": key.namespace,
        "name": key.name,
        "uid": str(obj["metadata"].get("uid", "")) if obj else "",
    }
