"""The replica as a whole: builds the parts, runs them, drains them. The composition root's hands."""

import asyncio
import functools
import logging
import math
import time
from collections.abc import Coroutine
from contextlib import suppress
from importlib import metadata
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from loraland_core import redis_connection
from loraland_core.errors import InvalidInput, Unavailable
from loraland_core.keys import Heartbeat, Residency
from loraland_core.rpc import admin_pb2_grpc, inference_pb2_grpc
from loraland_core.store import Store

from loraland_inference import config as configuration
from loraland_inference import gauges, listening
from loraland_inference.adapters import residency, residents, tiers, verification
from loraland_inference.adapters.link import Link
from loraland_inference.adapters.presence import Presence
from loraland_inference.adapters.registry import Registry
from loraland_inference.adapters.registry_reader import RegistryReader
from loraland_inference.adapters.retirement import Retirement
from loraland_inference.adapters.uses import Uses
from loraland_inference.admin_service import AdminService
from loraland_inference.config import Config
from loraland_inference.engine_client import EngineClient, EngineInfo
from loraland_inference.gate import Gate
from loraland_inference.grpc_service import InferenceService
from loraland_inference.limits import Limiter
from loraland_inference.metrics import Metrics
from loraland_inference.server_state import ServerState
from loraland_inference.tls import Certificate
from loraland_inference.tokens import Tokens
from loraland_inference.tracing import Tracer

log = logging.getLogger("loraland.inference")

REDIS_NAME = "loraland-inference"
STOPPING = "this replica is stopping; ask another"
# How long the last answers may take to be sent.
END_S = 1.0
# How often the mounted files are looked at.
FILES_EVERY_S = 5.0


class Server:
    """One replica. ``run`` serves until ``drain`` is called and the running requests are done."""

    def __init__(self, config: Config, *, metrics: Metrics, tracer: Tracer) -> None:
        self._config = config
        self._metrics = metrics
        self._tracer = tracer
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
            configuration.engine_settings(config),
            step_limit_s=config.step_limit_s,
            start_limit_s=config.start_limit_s,
            on_up=self._on_engine_up,
            on_down=self._on_engine_down,
        )
        self._limiter = Limiter(time.monotonic)
        self._tokens = Tokens(config.tokens_file, self._on_tokens)
        self._certificate = (
            Certificate(config.access.tls, functools.partial(metrics.reloaded, "certificate"))
            if config.access.tls is not None
            else None
        )
        self._tiers = tiers.build(
            config,
            store=self._store,
            redis=self._redis,
            engine=self._engine,
            registry=self._registry,
            observer=metrics.tiers,
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
        self._start("files", self._follow_files())
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
        access = self._config.access
        gate = Gate(
            tokens=self._tokens,
            limiter=self._limiter,
            metrics=self._metrics,
            tracer=self._tracer,
            max_deadline_s=access.max_deadline_s,
            registry=self._registry,
        )
        services: dict[listening.Add, Any] = {
            inference_pb2_grpc.add_InferenceServicer_to_server: InferenceService(
                coordinator=self._coordinator,
                engine=self._engine,
                state=self._state,
                max_deadline_s=access.max_deadline_s,
            ),
            admin_pb2_grpc.add_AdminServicer_to_server: AdminService(
                coordinator=self._coordinator, state=self._state, on_drain=self.drain
            ),
        }
        num_requests = self._config.max_running + self._config.max_queue
        server = listening.build_server(gate, services, self._health, max_requests=num_requests)
        listening.open_port(server, self._config.address, self._certificate)
        return server

    def _on_tokens(self, is_good: bool, tenants: frozenset[str]) -> None:
        self._metrics.reloaded("tokens", is_good)
        self._limiter.retain(tenants)

    async def _follow_files(self) -> None:
        """Notice a broken file even while nobody calls."""
        while True:
            self._tokens.refresh()
            if self._certificate is not None:
                self._certificate.refresh()
            await asyncio.sleep(FILES_EVERY_S)

    @property
    def is_ready(self) -> bool:
        return self._engine.is_ready and not self._state.is_draining

    def _watch_metrics(self) -> None:
        certificate = self._certificate
        parts = gauges.Parts(
            state=self._state,
            tiers=self._tiers,
            links=self._links,
            engine=self._engine,
            certificate_expires_s=lambda: (
                certificate.expires_at.timestamp() if certificate is not None else math.inf
            ),
            is_ready=lambda: self.is_ready,
        )
        gauges.watch(self._metrics, parts)

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
        for name in ("", *listening.SERVICES):
            await self._health.set(name, value)

    async def _finish_requests(self) -> None:
        await self._set_health(is_serving=False)
        try:
            async with asyncio.timeout(self._config.drain_grace_s):
                await self._state.idle.wait()
        except TimeoutError:
            num_ended = self._state.end(lambda _: Unavailable(STOPPING, retry_after_s=1.0))
            log.warning("%d requests outlast the grace period and are ended", num_ended)
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await self._state.idle.wait()

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
        self._tracer.close()

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
        held = residency.build(
            self._registry.records,
            tier_of=self._coordinator.tier,
            failures=self._tiers.places.failures(),
        )
        return Residency(replica=self._config.replica, adapters=held)
