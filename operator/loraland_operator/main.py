"""The operator's composition root: ``python -m loraland_operator``."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import kopf
from loraland_core import logs, names
from loraland_core.errors import LoraLandError
from loraland_core.store import Store

from loraland_operator import cluster, config, handlers, metrics, registry, streams, work
from loraland_operator.adapter import Adapters
from loraland_operator.base_models import BaseModels
from loraland_operator.cluster import Cluster
from loraland_operator.config import Config
from loraland_operator.finetunejob import FineTuneJobs
from loraland_operator.fleets import Fleets
from loraland_operator.health import Check, serving
from loraland_operator.housekeeping import Housekeeping
from loraland_operator.importer import Importer
from loraland_operator.leadership import LEASE, Leadership
from loraland_operator.mirror import Key, Mirror
from loraland_operator.plan.finetunejob import Settings
from loraland_operator.progress import ProgressReader
from loraland_operator.registry import Registry
from loraland_operator.resync import Resync
from loraland_operator.workqueue import Reconcile, Workqueue

END_TIMEOUT_S = 5.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Doors:
    """Everything outside that the operator talks to."""

    cluster: Cluster
    registry: Registry
    store: Store
    progress: ProgressReader


async def serve(settings: Config) -> None:
    """Wait for the Lease, then reconcile until a signal ends it."""
    health: dict[str, Check] = {}
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        api = await cluster.connect()
        stack.push_async_callback(api.close)
        leadership = Leadership(
            api, namespace=settings.namespace, name=LEASE, identity=settings.identity
        )
        api.identity = settings.identity
        api.before_write = leadership.check
        await stack.enter_async_context(
            serving(settings.bind_address, settings.liveness_port, health)
        )
        metrics.serve(settings.bind_address, settings.metrics_port)
        metrics.LEADING.set_function(lambda: leadership.is_leading)
        # After everything else has ended, so that the next one finds a quiet field.
        stack.push_async_callback(leadership.release)
        if await _elect(leadership, stop):
            await _lead(settings, api, leadership, health, stop)


async def _elect(leadership: Leadership, stop: asyncio.Event) -> bool:
    """Wait until this process leads; False if a signal ended the wait."""
    waiting = asyncio.ensure_future(leadership.acquire())

    def end() -> None:
        stop.set()
        waiting.cancel()

    # They stay until kopf puts its own in their place.
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    leadership.check_when_continued()
    return not stop.is_set()


async def _lead(
    settings: Config,
    api: Cluster,
    leadership: Leadership,
    health: dict[str, Check],
    stop: asyncio.Event,
) -> None:
    base_models = BaseModels(settings.catalogue_file)
    mirror = Mirror()
    reconcilers: dict[str, Reconcile[Key]] = {}
    queue = work.build_queue(reconcilers, mirror, num_workers=settings.num_workers)
    async with contextlib.AsyncExitStack() as stack:
        doors = await _open_doors(settings, api, leadership, stack)
        fleets = Fleets(
            registry=doors.registry,
            cluster=doors.cluster,
            mirror=mirror,
            base_models=base_models,
            namespaces=settings.watch_namespaces,
            wake=queue.add,
        )
        reconcilers.update(_build_reconcilers(settings, doors, mirror, fleets, base_models))
        queue.start()
        stack.push_async_callback(queue.stop)
        resync = Resync(
            cluster=api, mirror=mirror, namespaces=settings.watch_namespaces, wake=queue.add
        )
        health["watch streams"] = lambda: resync.stalled
        endless = {
            "fleets": fleets.run(),
            "resync": resync.run(),
            "lease": leadership.hold(),
            "streams": streams.watch(),
        }
        if settings.sweep != "off":
            endless["sweep"] = _sweep(settings, doors, leadership)
        background = [asyncio.create_task(run, name=name) for name, run in endless.items()]
        for task in background:
            stack.push_async_callback(_end, task)
        await _watch(settings, mirror, queue, background, stop)


def _sweep(settings: Config, doors: Doors, leadership: Leadership) -> Coroutine[Any, Any, None]:
    """Return the endless work of keeping the artifact store clean."""
    housekeeping = Housekeeping(
        cluster=doors.cluster,
        store=doors.store,
        namespaces=settings.watch_namespaces,
        clock=_now,
    )
    housekeeping.before_write = leadership.check
    return housekeeping.run(settings.sweep_every_s, is_dry=settings.sweep == "report")


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it is over; how it ended has been looked at already."""
    task.cancel()
    await asyncio.wait([task], timeout=END_TIMEOUT_S)


async def _open_doors(
    settings: Config, api: Cluster, leadership: Leadership, stack: contextlib.AsyncExitStack
) -> Doors:
    """Connect to everything outside; ``stack`` closes it again."""
    records = registry.connect(settings.redis)
    records.before_write = leadership.check
    stack.push_async_callback(records.close)
    store = Store(settings.store)
    stack.callback(store.close)
    session = await stack.enter_async_context(aiohttp.ClientSession())
    return Doors(cluster=api, registry=records, store=store, progress=ProgressReader(session))


def _build_reconcilers(
    settings: Config, doors: Doors, mirror: Mirror, fleets: Fleets, base_models: BaseModels
) -> dict[str, Reconcile[Key]]:
    """Return what brings an object of each kind on its way."""
    common = Settings(settings.trainer_image, settings.log_format, settings.store)
    jobs = FineTuneJobs(
        cluster=doors.cluster,
        mirror=mirror,
        store=doors.store,
        progress=doors.progress,
        base_models=base_models,
        settings=common,
        clock=_now,
    )
    adapters = Adapters(
        cluster=doors.cluster,
        mirror=mirror,
        store=doors.store,
        registry=doors.registry,
        fleets=fleets,
        base_models=base_models,
        importer=Importer(doors.cluster, mirror, doors.store, common),
        clock=_now,
    )
    return {names.FINE_TUNE_JOB: jobs.reconcile, names.ADAPTER: adapters.reconcile}


async def _watch(
    settings: Config,
    mirror: Mirror,
    queue: Workqueue[Key],
    background: list[asyncio.Task[None]],
    stop: asyncio.Event,
) -> None:
    """Let kopf watch until a signal ends it, or a task dies, which must not go unnoticed."""
    watched = kopf.OperatorRegistry()
    handlers.register(watched, mirror=mirror, queue=queue)
    kopf.on.login(registry=watched, id="login")(handlers.login)
    for task in background:
        task.add_done_callback(lambda _: stop.set())

    async def release(**_: object) -> None:
        # Else kopf waits 5 s for its own task that waits for the flag.
        stop.set()

    kopf.on.cleanup(registry=watched, id="release")(release)
    await kopf.operator(
        registry=watched,
        settings=handlers.build_settings(namespaces=settings.watch_namespaces),
        standalone=True,
        clusterwide=not settings.watch_namespaces,
        namespaces=settings.watch_namespaces,
        stop_flag=stop,
    )
    for task in background:
        if task.done() and not task.cancelled():
            task.result()


def main() -> int:
    try:
        settings = config.read()
        logs.configure(level=settings.log_level, as_json=settings.log_format == "json")
        # The watch streams say every event aloud.
        logging.getLogger("kopf").setLevel(logging.WARNING)
        asyncio.run(serve(settings))
    except LoraLandError as error:
        return _give_up(str(error))
    except OSError as error:
        return _give_up(f"cannot listen or connect: {error.strerror or error}")
    except KeyboardInterrupt:
        return 130
    return 0


def _give_up(message: str) -> int:
    print(f"loraland-operator: {message}", file=sys.stderr)  # noqa: T201 (logs may not be set up)
    return 1


def _now() -> datetime:
    return datetime.now(UTC)
