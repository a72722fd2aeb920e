"""The replica as a whole: builds the parts, runs them, drains them. The composition root's hands."""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from importlib import metadata
from typing import Any

import grpc
import prometheus_client
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from loraland_core import redis_connection
from loraland_core.errors import InvalidInput, Unavailable
from loraland_core.keys import Heartbeat, Residency, ResidentAdapter
from loraland_core.rpc import admin_pb2, admin_pb2_grpc, inference_pb2, inference_pb2_grpc
from loraland_core.store import Store

from loraland_inference import auth, requests
from loraland_inference.adapters import residents, tiers, verification
from loraland_inference.adapters.link import Link
from loraland_inference.adapters.observer import Observer
from loraland_inference.adapters.presence import Presence
from loraland_inference.adapters.registry import Registry
from loraland_inference.adapters.registry_reader import RegistryReader
from loraland_inference.adapters.retirement import Retirement
from loraland_inference.adapters.uses import Uses
from loraland_inference.admin_service import AdminService
from loraland_inference.config import Config
from loraland_inference.engine_client import EngineClient, EngineInfo
from loraland_inference.grpc_service import InferenceService
from loraland_inference.metrics import Metrics
from loraland_inference.server_state import ServerState

log = logging.getLogger("loraland.inference")

MIN_PING_GAP_MS = 10_000
REDIS_NAME = "loraland-inference"
STOPPING = "this replica is stopping; ask another"
# How long the last answers may take to be sent.
END_S = 1.0
# What the engine says of itself, by its name there.
ENGINE_GAUGES = {
    "num_waiting": "Completions that wait for KV memory.",
    "num_running": "Completions in the batch.",
    "num_kv_blocks": "Blocks of KV memory.",
    "num_free_kv_blocks": "Those of them that no completion holds.",
    "num_prefix_query_tokens": "Tokens of prompts looked up in the prefix cache, since the start.",
    "num_prefix_hit_tokens": "Those of them that were found and not computed.",
    "num_preemptions": "Completions that gave way and were computed again, since the start.",
}
SERVICES = (
    inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name,
    admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name,
)


class Server:
    """One replica. ``run`` serves until ``drain`` is called and the running requests are done."""

    def __init__(self, config: Config, *, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._draining = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._state = ServerState(
            base_model=config.base_model,
            replica=config.replica,
            max_rank=config.entry.limits.max_rank,
            version=metadata.version("loraland"),
            max_requests=config.max_running + config.max_queue,
        )
        self._store = Store(config.store)
        self._redis = redis_connection.connect(config.redis, client_name=REDIS_NAME)
        # A user of its own: who may write heartbeats may not even read how the registry is kept.
        self._registry_redis = redis_connection.connect(
            config.redis, client_name=REDIS_NAME, login=config.redis.registry_login
        )
        self._links = {
            "registry": Link("what is known is served on"),
            "presence": Link("this replica is not seen"),
        }
        self._registry = Registry()
        self._uses = Uses(self._redis, config.base_model)
        self._engine = EngineClient(
            _engine_settings(config),
            step_limit_s=config.step_limit_s,
            start_limit_s=config.start_limit_s,
            on_up=self._on_engine_up,
            on_down=self._on_engine_down,
        )
        self._tiers = tiers.build(
            config,
            store=self._store,
            redis=self._redis,
            engine=self._engine,
            registry=self._registry,
            observer=Observer(),
            on_use=self._uses.count,
        )
        self._coordinator = self._tiers.coordinator
        self._presence = Presence(
            self._redis,
            heartbeat=self._heartbeat,
            residency=self._residency,
            link=self._links["presence"],
        )
        self._registry.on_judged = self._presence.tell
        self._health = health.aio.HealthServicer()
        self._background: dict[str, asyncio.Task[Any]] = {}

    async def run(self) -> None:
        """Serve; raise ``InvalidInput`` where the port or the adapter folder cannot be had."""
        await self._set_health(is_serving=False)
        try:
            self._tiers.prepare()
        except OSError as error:
            raise InvalidInput(
                f"cannot be made: {error.strerror}", field=str(self._config.adapter_dir)
            ) from error
        server = self._build_grpc_server()
        await server.start()
        log.info("listening on %s", self._config.address)
        self._watch_metrics()
        reader = RegistryReader(
            self._registry_redis,
            self._config.base_model,
            self._registry,
            link=self._links["registry"],
        )
        self._start("engine", self._engine.run())
        self._start("registry", reader.run())
        try:
            await self._draining.wait()
            await self._finish_requests()
        finally:
            await self._stop(server)

    def drain(self) -> None:
        """Take no new requests; ``run`` returns when the running ones are done."""
        if not self._state.is_draining:
            log.info("draining: %d requests are running", self._state.num_requests)
        self._state.is_draining = True
        self._draining.set()

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the requests; its failure ends the replica rather than half of it."""
        task = asyncio.create_task(work, name=name)
        self._background[name] = task
        task.add_done_callback(self._on_background_end)

    def _on_background_end(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed; this replica ends", task.get_name(), exc_info=error)
            self.drain()

    def _build_grpc_server(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=[auth.Interceptor(auth.Tokens(self._config.tokens_file))],
            options=[
                ("grpc.max_receive_message_length", requests.MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
                # Clients ping while a call runs, to find out that this machine has vanished.
                ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_GAP_MS),
            ],
        )
        inference_pb2_grpc.add_InferenceServicer_to_server(
            InferenceService(
                coordinator=self._coordinator,
                engine=self._engine,
                state=self._state,
                metrics=self._metrics,
            ),
            server,
        )
        admin_pb2_grpc.add_AdminServicer_to_server(
            AdminService(
                coordinator=self._coordinator,
                state=self._state,
                metrics=self._metrics,
                on_drain=self.drain,
            ),
            server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        try:
            server.add_insecure_port(self._config.address)
        except RuntimeError as error:
            raise InvalidInput(
                f"{self._config.address} is taken or not ours; choose another LORALAND_PORT",
                field="LORALAND_PORT",
            ) from error
        return server

    def _watch_metrics(self) -> None:
        watch = self._metrics.watch
        watch("requests_running", "Running and waiting.", lambda: self._state.num_requests)
        watch("adapters_resident", "In slots.", lambda: len(self._coordinator.slots.loaded))
        watch("adapters_known", "Registered.", lambda: len(self._registry))
        watch("registry_known", "1 once it has been read whole.", lambda: self._registry.is_known)
        for name, link in self._links.items():
            watch(f"redis_{name}_up", "1 while Redis does as asked.", _reader(link, "is_up"))
            watch(f"redis_{name}_failures", "Since the start.", _reader(link, "num_failures"))
            watch(f"redis_{name}_silent_seconds", "Since it last did.", _reader(link, "silent_s"))
        for name, text in ENGINE_GAUGES.items():
            watch(f"engine_{name}", text, functools.partial(self._engine.stat, name))
        watch("engine_restarts", "Since the start.", lambda: self._engine.num_restarts)

    def _on_engine_up(self, info: EngineInfo) -> None:
        """Start what needs the base model's revision, once, and be ready."""
        if "verification" not in self._background:
            expected = verification.Expectation(
                base_model=self._config.base_model,
                resolved_revision=info.resolved_revision,
                max_rank=self._config.entry.limits.max_rank,
            )
            self._start("verification", verification.run(self._registry, self._store, expected))
            self._start("residents", residents.run(self._tiers, self._uses))
            self._start("uses", self._uses.run())
            grace_s = self._config.drain_grace_s
            retirement = Retirement(self._coordinator, self._state, grace_s=grace_s)
            self._start("retirement", retirement.run())
            self._start("presence", self._presence.run())
        self._schedule(self._set_health(is_serving=True))

    def _on_engine_down(self) -> None:
        self._coordinator.lose_slots()
        self._schedule(self._set_health(is_serving=False))

    def _schedule(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _set_health(self, *, is_serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        is_ready = is_serving and not self._state.is_draining
        value = status.SERVING if is_ready else status.NOT_SERVING
        for name in ("", *SERVICES):
            await self._health.set(name, value)

    async def _finish_requests(self) -> None:
        await self._set_health(is_serving=False)
        try:
            await asyncio.wait_for(self._state.idle.wait(), self._config.drain_grace_s)
        except TimeoutError:
            num_ended = self._state.end(lambda _: Unavailable(STOPPING, retry_after_s=1.0))
            log.warning("%d requests outlast the grace period and are ended", num_ended)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._state.idle.wait(), END_S)

    async def _stop(self, server: grpc.aio.Server) -> None:
        await server.stop(grace=END_S)
        for task in self._background.values():
            task.cancel()
        await asyncio.gather(*self._background.values(), return_exceptions=True)
        await self._tiers.close()
        if self._engine.info is not None:
            await self._presence.leave()
        await self._redis.aclose()
        await self._registry_redis.aclose()
        self._store.close()

    def _heartbeat(self) -> Heartbeat:
        slots = self._coordinator.slots
        return Heartbeat(
            replica=self._config.replica,
            address=self._config.address,
            base_model=self._config.base_model,
            resolved_revision=self._engine.info.resolved_revision if self._engine.info else "",
            max_rank=self._config.entry.limits.max_rank,
            num_slots=slots.num_slots,
            num_free_slots=slots.num_free,
            queue_depth=self._state.num_requests,
            applied_revision=self._registry.applied_revision,
            rejected=self._registry.rejections(),
            draining=self._state.is_draining,
        )

    def _residency(self) -> Residency:
        held = {
            adapter_id: ResidentAdapter(digest=record.digest, tier=tier)
            for adapter_id, record in self._registry.records.items()
            if (tier := self._coordinator.tier(record.digest)) != "absent"
        }
        return Residency(replica=self._config.replica, adapters=held)


def _reader(link: Link, attribute: str) -> Callable[[], float]:
    return lambda: float(getattr(link, attribute))


def start_metrics_endpoint(config: Config) -> None:
    try:
        prometheus_client.start_http_server(config.metrics_port, addr=config.host)
    except OSError as error:
        raise InvalidInput(
            f"{config.host}:{config.metrics_port} cannot be had: {error.strerror}",
            field="LORALAND_METRICS_PORT",
        ) from error


def _engine_settings(config: Config) -> dict[str, Any]:
    return {
        "base_model": config.base_model,
        "entry": config.entry.model_dump(mode="json", by_alias=True),
        "store": config.store.model_dump(mode="json", by_alias=True),
        "cache_dir": str(config.cache_dir),
        "num_slots": config.num_slots,
        "max_running": config.max_running,
        "max_queue": config.max_queue,
        "kv_memory_bytes": config.kv_memory_bytes,
        "prefix_cache": config.prefix_cache,
        "threads": config.engine_threads,
        "log_level": config.log_level,
        "log_as_json": config.log_as_json,
    }
