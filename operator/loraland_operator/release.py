"""Lets go of every Adapter, before the operator is uninstalled: ``python -m loraland_operator release``.

A finalizer without its operator keeps an object, and its namespace with it, for ever. So whoever
uninstalls runs this first (the chart does, before it deletes anything). It takes the Lease away from
the operator that leads, which ends that one and keeps it from putting finalizers back, and then takes
our finalizer off each Adapter. Files and registry stay as they are; an operator that is installed
again finds them.
"""

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence

from loraland_core import logs, names
from loraland_core.errors import LoraLandError, NotFound, Unavailable

from loraland_operator import cluster as kubernetes
from loraland_operator import config
from loraland_operator.answers import Stale
from loraland_operator.cluster import Cluster, Object
from loraland_operator.leadership import LEASE, Leadership
from loraland_operator.plan import lease

log = logging.getLogger(__name__)

IDENTITY = "loraland-operator-release"
# Long enough for the Deployment to be deleted after us; an operator that is installed again at once
# waits for so long.
HOLD_S = 60
# Patches between two renewals of the Lease.
CHUNK = 50
MAX_ATTEMPTS = 5


async def release(
    cluster: Cluster,
    leadership: Leadership,
    namespaces: Sequence[str],
    *,
    wait_s: float = lease.DURATION_S,
) -> int:
    """Take the Lease and every finalizer of ours; return how many Adapters had one."""
    if await leadership.seize(HOLD_S):
        # The leader has noticed by then, or may not write any more.
        await asyncio.sleep(wait_s)
    num_released = 0
    for namespace in namespaces or ("",):
        held = await _find_held(cluster, namespace)
        for start in range(0, len(held), CHUNK):
            await leadership.seize(HOLD_S)
            chunk = held[start : start + CHUNK]
            num_released += sum(await asyncio.gather(*(_let_go(cluster, a) for a in chunk)))
    return num_released


async def _find_held(cluster: Cluster, namespace: str) -> list[Object]:
    try:
        found = await cluster.list(kubernetes.ADAPTERS, namespace)
    except NotFound:
        log.info("there is no definition of Adapters, so there are none")
        return []
    return [adapter for adapter in found if _is_held(adapter)]


def _is_held(adapter: Mapping[str, object]) -> bool:
    metadata = adapter["metadata"]
    assert isinstance(metadata, Mapping)
    return names.FINALIZER in (metadata.get("finalizers") or ())


async def _let_go(cluster: Cluster, adapter: Object) -> bool:
    """Take our finalizer off, whatever version the Adapter has by now; whether there was one."""
    metadata = adapter["metadata"]
    for _ in range(MAX_ATTEMPTS):
        others = [f for f in metadata["finalizers"] if f != names.FINALIZER]
        try:
            await cluster.patch(kubernetes.ADAPTERS, adapter, {"metadata": {"finalizers": others}})
        except Stale:
            found = await cluster.find(kubernetes.ADAPTERS, metadata["namespace"], metadata["name"])
            if found is None or not _is_held(found):
                return False
            adapter, metadata = found, found["metadata"]
        except NotFound:
            return False
        else:
            log.info("Adapter %s/%s is let go", metadata["namespace"], metadata["name"])
            return True
    raise Unavailable(f"Adapter {metadata['namespace']}/{metadata['name']} changes all the time")


async def _main(settings: config.Place) -> int:
    api = await kubernetes.connect()
    api.identity = IDENTITY
    leadership = Leadership(api, namespace=settings.namespace, name=LEASE, identity=IDENTITY)
    try:
        return await release(api, leadership, settings.watch_namespaces)
    finally:
        await api.close()


def main() -> int:
    try:
        settings = config.read_place()
        logs.configure(level=settings.log_level, as_json=settings.log_format == "json")
        num_released = asyncio.run(_main(settings))
    except LoraLandError as error:
        print(f"loraland-operator release: {error}", file=sys.stderr)  # noqa: T201 (a command)
        return 1
    print(f"{num_released} Adapters let go")  # noqa: T201 (the same)
    return 0
