"""Opens a client for Redis settings: one server, Sentinel or Cluster, with timeouts everywhere.

The only place that builds Redis clients; what they are used for is the parts' own matter.
"""

import asyncio
from typing import Any

import redis.asyncio
import redis.exceptions
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialWithJitterBackoff

from loraland_core.redis_settings import Login, RedisSettings, Tls, Topology

# Whatever a Redis that is away, full, failing over or set up wrongly can raise. The Cluster
# client's own errors are no ``RedisError``.
FAILURES = (
    redis.exceptions.RedisError,
    redis.exceptions.RedisClusterException,
    OSError,
    TimeoutError,
)
HEALTH_CHECK_EVERY_S = 15
# A blocking command holds a connection; leaks are bounded by this.
MAX_CONNECTIONS = 32


class _SentinelClient(redis.asyncio.Redis):
    """A master found by Sentinels; closes its connections to them as well."""

    finder: Any

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        await self.finder.aclose()


def connect(
    settings: RedisSettings,
    *,
    client_name: str,
    login: Login | None = None,
    decode_responses: bool = False,
    num_retries: int = 0,
) -> Any:
    """Return a client that connects when first used, and gives up on silence within seconds.

    Untyped: redis-py declares the replies of every client and protocol at once. ``login`` replaces
    that of the settings. A caller with a loop of its own retries there and takes ``num_retries`` 0.
    """
    options = _options(settings, login or settings.login) | {
        "client_name": client_name,
        "decode_responses": decode_responses,
        "max_connections": MAX_CONNECTIONS,
        "retry": Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.1), num_retries),
    }
    if settings.topology is Topology.CLUSTER:
        nodes = [ClusterNode(host, port) for host, port in settings.addresses]
        return RedisCluster(startup_nodes=nodes, **options)
    options["db"] = settings.database
    if settings.topology is Topology.SENTINEL:
        return _connect_by_sentinels(settings, options)
    host, port = settings.addresses[0]
    return redis.asyncio.Redis(host=host, port=port, **options)


def describe(error: BaseException) -> str:
    """Return one line about a failure; some of them have no words of their own."""
    return str(error) or type(error).__name__


def raise_if_cancelled() -> None:
    """Raise the cancellation that a call to Redis may have lost; a loop over such calls asks this.

    redis-py sends within ``asyncio.wait_for``, and Python 3.11's loses a cancellation that comes
    just when the sending is done: https://github.com/python/cpython/issues/86296.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _connect_by_sentinels(settings: RedisSettings, options: dict[str, Any]) -> Any:
    build: Any = Sentinel
    finder = build(
        settings.addresses,
        sentinel_kwargs=_options(settings, settings.sentinel_login)
        | {"retry": Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.1), 0)},
    )
    client = finder.master_for(settings.service, redis_class=_SentinelClient, **options)
    client.finder = finder
    return client


def _options(settings: RedisSettings, login: Login) -> dict[str, Any]:
    return {
        "username": login.user or None,
        "password": login.password or None,
        "socket_timeout": settings.timeout_s,
        "socket_connect_timeout": settings.timeout_s,
        "health_check_interval": HEALTH_CHECK_EVERY_S,
        # Replies have one shape for every server from 6.2 on.
        "protocol": 2,
        # Servers before 7.2 refuse it, and count it as a breach of the user's rights.
        "driver_info": None,
        **_tls_options(settings.tls),
    }


def _tls_options(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": tls.ca_file or None,
        "ssl_certfile": tls.cert_file or None,
        "ssl_keyfile": tls.key_file or None,
    }
