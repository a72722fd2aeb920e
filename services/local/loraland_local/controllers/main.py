"""The controllers' process: connects to the API that KUBECONFIG names and runs all loops.

The composition root; the only place that reads the environment and arguments.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import os
import pathlib
import signal
from collections.abc import Sequence

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.informer import Informer
from loraland_local.apiclient.resources import Resource
from loraland_local.apiclient.workqueue import Workqueue
from loraland_local.controllers import collector, job, node_health, ttl, workloads
from loraland_local.controllers.namespaces import NamespaceController
from loraland_local.controllers.placement import PlacementController

_log = logging.getLogger("loraland_local.controllers")
_EVENT_SWEEP_INTERVAL_S = 60.0


@dataclasses.dataclass(frozen=True)
class Config:
    kubeconfig: pathlib.Path | None
    job_backoff_s: float
    log_level: str


def read_config(arguments: Sequence[str] | None = None) -> Config:
    parser = argparse.ArgumentParser(
        prog="python -m loraland_local.controllers", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"))
    parser.add_argument(
        "--job-backoff-s",
        type=float,
        default=job.FIRST_BACKOFF_S,
        help="wait before the first retry of a Job's failed pod; doubled each time",
    )
    parser.add_argument("--log-level", default=os.environ.get("LORALAND_LOG_LEVEL", "INFO"))
    found = parser.parse_args(arguments)
    return Config(
        kubeconfig=pathlib.Path(found.kubeconfig) if found.kubeconfig else None,
        job_backoff_s=found.job_backoff_s,
        log_level=found.log_level.upper(),
    )


async def run(config: Config) -> None:
    """Run all controllers until cancelled."""
    cluster = await Cluster.connect(config.kubeconfig)
    try:
        await _run_loops(cluster, config)
    finally:
        await cluster.close()


async def _run_loops(cluster: Cluster, config: Config) -> None:
    followed = (
        resources.PODS,
        resources.NODES,
        resources.JOBS,
        resources.DEPLOYMENTS,
        resources.REPLICA_SETS,
        resources.NAMESPACES,
        resources.SERVICE_ACCOUNTS,
        resources.CONFIG_MAPS,
    )
    informers = {resource: Informer(cluster, resource) for resource in followed}
    definitions = collector.definitions_informer(cluster)
    async with asyncio.TaskGroup() as group:
        for informer in (*informers.values(), definitions):
            group.create_task(informer.run())
        # A decision on half a picture could create pods that are there already.
        for informer in informers.values():
            await informer.wait_synced()
        garbage = collector.Collector(cluster, definitions)
        group.create_task(garbage.run())
        for queue in _build_queues(cluster, informers, garbage, config):
            group.create_task(queue.run())
        group.create_task(_sweep_events(cluster))
        group.create_task(node_health.watch_over(cluster, informers[resources.NODES]))
        _log.info("controllers are running")


def _build_queues(
    cluster: Cluster,
    informers: dict[Resource, Informer],
    garbage: collector.Collector,
    config: Config,
) -> list[Workqueue]:
    pods = informers[resources.PODS]
    replica_sets = informers[resources.REPLICA_SETS]
    jobs = workloads.JobController(
        cluster, informers[resources.JOBS], pods, first_backoff_s=config.job_backoff_s
    )
    namespaces = NamespaceController(
        cluster,
        informers[resources.NAMESPACES],
        informers[resources.SERVICE_ACCOUNTS],
        informers[resources.CONFIG_MAPS],
        garbage,
    )
    return [
        jobs.queue,
        workloads.ReplicaSetController(cluster, replica_sets, pods).queue,
        workloads.DeploymentController(
            cluster, informers[resources.DEPLOYMENTS], replica_sets
        ).queue,
        PlacementController(cluster, pods, informers[resources.NODES]).queue,
        namespaces.queue,
    ]


async def _sweep_events(cluster: Cluster) -> None:
    """Delete events whose time to live is over, as the store of a real API server would."""
    while True:
        await asyncio.sleep(_EVENT_SWEEP_INTERVAL_S)
        try:
            found, _ = await cluster.list(resources.EVENTS)
            for event in found:
                if ttl.is_event_outdated(event, workloads.now_utc()):
                    await cluster.delete(resources.EVENTS, *objects.key(event))
        except ApiError as error:
            _log.debug("events: %s", error)


async def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await run(config)


def main(arguments: Sequence[str] | None = None) -> None:
    config = read_config(arguments)
    logging.basicConfig(
        level=config.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    asyncio.run(serve(config))
