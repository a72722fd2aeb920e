"""The kubelet's process. The composition root; the only place that reads the environment."""

import asyncio
import contextlib
import dataclasses
import logging
import pathlib
import shutil
import signal
import ssl
from collections.abc import Sequence

from aiohttp import web

from loraland_local.api import certificates
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.recorder import Recorder
from loraland_local.kubelet import config as settings
from loraland_local.kubelet import images, node, server
from loraland_local.kubelet.addresses import AddressPool
from loraland_local.kubelet.config import Config
from loraland_local.kubelet.context import Context
from loraland_local.kubelet.kubelet import Kubelet
from loraland_local.kubelet.logs import LogStore
from loraland_local.kubelet.node import Node

_log = logging.getLogger("loraland_local.kubelet")
_MAX_KEPT_LOGS = 200
_LAST_WORDS_S = 1.0


async def run(config: Config) -> None:
    """Be this node until cancelled."""
    images.load(config.images)
    _clean(config.state)
    cluster = await Cluster.connect(config.kubeconfig)
    addresses = AddressPool(config.pod_network)
    config = dataclasses.replace(config, host=config.host or addresses.host_address)
    logs = LogStore(config.state / "logs")
    logs.prune(_MAX_KEPT_LOGS)
    application = server.build_application(logs)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, config.host, config.port).start()
        # A real API server fetches logs over TLS only, from the port in the node's status.
        context = _build_tls_context(config)
        await web.TCPSite(runner, config.host, 0, ssl_context=context).start()
        this_node = _build_node(config, runner)
        recorder = Recorder(cluster, "kubelet", this_node.name)
        await node.register(cluster, this_node)
        _log.info("node %s is ready; logs at %s", this_node.name, this_node.url)
        await _be_node(
            Context(cluster, recorder, config, logs, addresses, dict(this_node.capacity)), this_node
        )
    finally:
        await runner.cleanup()
        await cluster.close()


def _build_node(config: Config, runner: web.AppRunner) -> Node:
    (host, port), (_, tls_port) = (address[:2] for address in runner.addresses)
    return Node(
        name=config.node_name,
        address=str(host),
        url=f"http://{host}:{port}",
        tls_port=int(tls_port),
        capacity=node.find_capacity(config.capacity),
        labels=config.labels,
    )


async def _be_node(context: Context, this_node: Node) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(node.keep_alive(context.cluster, this_node))
            group.create_task(Kubelet(context).run())
    finally:
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await node.set_ready(context.cluster, this_node, is_ready=False)
        await context.recorder.flush(_LAST_WORDS_S)


def _build_tls_context(config: Config) -> ssl.SSLContext:
    _, certificate, key = certificates.ensure(config.state / "pki", config.host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _clean(state: pathlib.Path) -> None:
    """Make the directories; what was temporary for an earlier kubelet's pods goes."""
    shutil.rmtree(state / "t", ignore_errors=True)
    for name in ("pods", "logs", "volumes", "cache", "t"):
        (state / name).mkdir(parents=True, exist_ok=True)


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
    config = settings.read(arguments)
    logging.basicConfig(
        level=config.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    try:
        asyncio.run(serve(config))
    except (OSError, ValueError, ApiError) as error:
        raise SystemExit(f"kubelet: {error}") from error
