"""What ``helm test`` runs in a replica's image: the base model has a registry and a ready replica.

Asks Redis where replicas are, then each of them over plain HTTP; so it needs neither DNS nor rights.
"""

import asyncio
import os
import sys
import time
import urllib.request

from loraland_core import keys, redis_connection, redis_settings
from loraland_core.errors import LoraLandError

CLIENT = "loraland-test"
POLL_S = 1.0


async def main() -> int:
    base_model = os.environ["LORALAND_BASE_MODEL"]
    deadline = time.monotonic() + float(os.environ["LORALAND_TEST_TIMEOUT_S"])
    while True:
        missing = await find_missing(base_model)
        if not missing:
            print(f"{base_model}: served")  # noqa: T201 (the test's log)
            return 0
        if time.monotonic() > deadline:
            print(f"{base_model}: {missing}", file=sys.stderr)  # noqa: T201
            return 1
        await asyncio.sleep(POLL_S)


async def find_missing(base_model: str) -> str:
    """Return what is still missing, or nothing."""
    settings = redis_settings.read(os.environ)
    try:
        # As a replica does: one user reads the registry, another one the heartbeats.
        login = settings.registry_login
        async with redis_connection.connect(settings, client_name=CLIENT, login=login) as registry:
            epoch = await registry.get(keys.epoch(base_model))
        async with redis_connection.connect(settings, client_name=CLIENT) as redis:
            names = await redis.zrevrange(keys.replicas(base_model), 0, -1)
            found = [keys.beat(base_model, text(name)) for name in names]
            beats = await redis.mget(found) if found else []
    except Exception as error:
        return f"Redis: {redis_connection.describe(error)}"
    if epoch is None:
        return "the operator has not published the registry"
    try:
        live = [keys.parse_heartbeat(beat) for beat in beats if beat is not None]
    except LoraLandError as error:
        return f"a heartbeat cannot be read: {error}"
    if not live:
        return "no replica sends heartbeats"
    waits = [beat.replica for beat in live if not await asyncio.to_thread(is_ready, beat.address)]
    return f"not ready: {', '.join(waits)}" if waits else ""


def is_ready(address: str) -> bool:
    host = address.rpartition(":")[0]
    url = f"http://{host}:{os.environ['LORALAND_METRICS_PORT']}/readyz"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
