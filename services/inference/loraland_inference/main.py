"""Entry point of a replica: reads the environment once, runs the server, answers signals."""

import asyncio
import logging
import os
import signal
import sys
from importlib import metadata

from loraland_core import logs
from loraland_core.errors import InvalidInput, LoraLandError

from loraland_inference import access
from loraland_inference import config as configuration
from loraland_inference.endpoint import Endpoint
from loraland_inference.metrics import Metrics
from loraland_inference.server import Server
from loraland_inference.tracing import Tracer

log = logging.getLogger("loraland.inference")


def main() -> None:
    try:
        config = configuration.read(os.environ)
        logs.configure(level=config.log_level, as_json=config.log_as_json)
        endpoint = Endpoint()
        endpoint.start(config.host, config.metrics_port)
        asyncio.run(_serve(config, endpoint))
    except LoraLandError as error:
        # A sentence for whoever set it up, not a traceback.
        sys.exit(f"loraland-inference: {error}")
    log.info("stopped")
    logging.shutdown()
    # Not ``sys.exit``: it would wait for threads that wait for a store that may never answer.
    os._exit(0)


async def _serve(config: configuration.Config, endpoint: Endpoint) -> None:
    metrics = Metrics(top=config.access.metrics_top)
    server = Server(config, metrics=metrics, tracer=_build_tracer(config))
    endpoint.is_ready = lambda: server.is_ready
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.drain)
    await server.run()


def _build_tracer(config: configuration.Config) -> Tracer:
    if not config.access.traces_endpoint:
        return Tracer()
    try:
        # Wants the extra ``traces``; most replicas have no use for it.
        from loraland_inference import spans  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInput(
            "wants OpenTelemetry: install loraland[traces], or leave it out",
            field=access.TRACES_ENDPOINT,
        ) from error
    return spans.build_exporting(
        config.access.traces_endpoint,
        sample_ratio=config.access.traces_sample_ratio,
        resource={
            "service.name": "loraland-inference",
            "service.instance.id": config.replica,
            "service.version": metadata.version("loraland"),
            "loraland.base_model": config.base_model,
        },
    )
