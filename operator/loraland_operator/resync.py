"""Lists everything anew every few minutes, for events that a watch stream lost.

A stream that stalls without an error, or a deletion that fell into the gap between two streams,
would otherwise stay unseen until the operator restarts.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from loraland_core import names
from loraland_core.errors import LoraLandError

from loraland_operator import cluster as kubernetes
from loraland_operator.cluster import Cluster, Resource
from loraland_operator.mirror import Key, Mirror, Object, key_of

log = logging.getLogger(__name__)

EVERY_S = 120.0
# After a look that found something.
AGAIN_S = 15.0
# What the list shows may reach us by its stream a moment later.
GRACE_S = 3.0
# So many looks in a row that find what no stream brought: the streams are dead.
STALLED_LOOKS = 3
# Pods and Jobs of others are none of our business.
CHILD_SELECTOR = names.LABEL_JOB_UID
WATCHED = (
    (kubernetes.FINE_TUNE_JOBS, ""),
    (kubernetes.ADAPTERS, ""),
    (kubernetes.JOBS, CHILD_SELECTOR),
    (kubernetes.PODS, CHILD_SELECTOR),
)


def concerns(obj: Object) -> Key:
    """Return whose plan an object matters to: its own, or that of the one it is a child of."""
    key = key_of(obj)
    if key.kind in (names.FINE_TUNE_JOB, names.ADAPTER):
        return key
    labels = obj["metadata"].get("labels") or {}
    if names.LABEL_IMPORT in labels:
        return Key(names.ADAPTER, key.namespace, labels[names.LABEL_IMPORT])
    return Key(names.FINE_TUNE_JOB, key.namespace, labels.get(names.LABEL_JOB, ""))


class Resync:
    """Holds the mirror against what the API server lists."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        mirror: Mirror,
        namespaces: tuple[str, ...],
        wake: Callable[[Key], None],
        grace_s: float = GRACE_S,
    ) -> None:
        self._grace_s = grace_s
        # Looks in a row that found something that no stream had brought, by plural.
        self._misses: Counter[str] = Counter()
        self._cluster = cluster
        self._mirror = mirror
        self._namespaces = namespaces
        self._wake = wake

    @property
    def stalled(self) -> str:
        """What no longer comes by its stream, or nothing. For the liveness probe."""
        return ", ".join(k for k, n in sorted(self._misses.items()) if n >= STALLED_LOOKS)

    async def run(self) -> None:
        """Look every few minutes, and sooner after a surprise, until cancelled."""
        while True:
            await asyncio.sleep(AGAIN_S if any(self._misses.values()) else EVERY_S)
            for resource, labels in WATCHED:
                try:
                    num_missed = await self.look(resource, labels)
                except LoraLandError as error:
                    log.warning("%s cannot be listed: %s", resource.plural, error)
                    continue
                if num_missed:
                    log.warning(
                        "%d changes of %s came without an event", num_missed, resource.plural
                    )

    async def look(self, resource: Resource, labels: str) -> int:
        """Take over what the streams missed; return how much that was."""
        # What came to the mirror after this line may be newer than the list.
        before = {obj["metadata"]["uid"]: obj for obj in self._mirror.of_kind(resource.kind)}
        listed: list[Object] = []
        for namespace in self._namespaces or ("",):
            listed += await self._cluster.list(resource, namespace, labels=labels)
        for obj in listed:
            before.pop(obj["metadata"]["uid"], None)
        news = [obj for obj in listed if self._mirror.is_news(obj)]
        if news or before:
            await asyncio.sleep(self._grace_s)
        missed = [obj for obj in news if self._mirror.put(obj)]
        missed += [obj for obj in before.values() if self._mirror.remove(obj)]
        for obj in missed:
            self._wake(concerns(obj))
        self._misses[resource.plural] = self._misses[resource.plural] + 1 if missed else 0
        return len(missed)
