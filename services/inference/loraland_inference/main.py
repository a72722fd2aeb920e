"""Entry point of a replica: reads the environment once, runs the server, answers signals."""

import asyncio
import logging
import os
import signal
import sys

from loraland_core import logs
from loraland_core.errors import LoraLandError

from loraland_inference import config as configuration
from loraland_inference.metrics import Metrics
from loraland_inference.server import Server, start_metrics_endpoint

log = logging.getLogger("loraland.inference")


def main() -> None:
    try:
        config = configuration.read(os.environ)
        logs.configure(level=config.log_level, as_json=config.log_as_json)
        start_metrics_endpoint(config)
        asyncio.run(_serve(config))
    except LoraLandError as error:
        # A sentence for whoever set it up, not a traceback.
        sys.exit(f"loraland-inference: {error}")
    log.info("stopped")
    logging.shutdown()
    # Not ``sys.exit``: it would wait for threads that wait for a store that may never answer.
    os._exit(0)


async def _serve(config: configuration.Config) -> None:
    server = Server(config, metrics=Metrics())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.drain)
    await server.run()
