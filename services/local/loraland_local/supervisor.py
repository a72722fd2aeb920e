"""The stack's one supervisor: starts the stations in order, keeps them up, ends them all.

Runs until SIGTERM or, where it was started for somebody's sake, until that process ends (the end of
its standard input). Its sweeper kills what would be left if it were killed itself.
"""

import asyncio
import contextlib
import importlib.metadata
import os
import time
from collections.abc import Awaitable

from loraland_core.errors import LoraLandError, Unavailable

from loraland_local import (
    addresses,
    bundle,
    controlplane,
    credentials,
    installation,
    kubectl,
    layout,
    platform,
    redisserver,
    stations,
)
from loraland_local.apiclient.cluster import ApiError, Cluster
from loraland_local.board import Board
from loraland_local.children import Children
from loraland_local.layout import Layout, StackRecord, Station
from loraland_local.options import StackOptions

_APPLY_TIMEOUT_S = 60.0
_OPERATOR_TIMEOUT_S = 180.0
# The first start on a machine converts the base model's weights.
_INFERENCE_TIMEOUT_S = 900.0
_POLL_S = 0.5
_DETAIL_EVERY_S = 3.0
_STATUS_EVERY_S = 2.0


class Supervisor:
    """Runs one stack."""

    def __init__(self, options: StackOptions, place: Layout) -> None:
        self._options = options
        self._layout = place
        self._begun_s = time.time()
        self._assets = os.environ.get(controlplane.ASSETS_VARIABLE, "")
        names = stations.station_names(self._assets)
        self.board = Board(
            place,
            StackRecord(
                state="starting",
                pid=os.getpid(),
                base_model=platform.BASE_MODEL,
                grpc_port=0,
                stations=[Station(name=name) for name in names],
            ),
        )
        self.children = Children(place, self.board)

    async def run(self) -> None:
        """Start everything and keep it up until cancelled."""
        block = addresses.claim_block(self._layout.state)
        try:
            plan = self._decide(block)
            stations.write_files(plan)
            self.children.clear_logs()
            await self._start_programs(stations.build_foundation(plan))
            self._publish_kubeconfig()
            cluster = await Cluster.connect(self._layout.kubeconfig)
            try:
                await self._bring_up(plan, cluster)
                await asyncio.gather(self.children.watch(), self._follow(cluster))
            finally:
                await cluster.close()
        finally:
            block.release()

    def _decide(self, block: addresses.Block) -> stations.Plan:
        ports = _choose_ports(block, self._options)
        plan = stations.Plan(
            layout=self._layout,
            block=block,
            ports=ports,
            credentials=credentials.ensure(self._layout),
            version=importlib.metadata.version("loraland"),
            assets=self._assets,
        )
        self.board.set_state(
            "starting",
            block=block.pod_cidr or block.host,
            grpc_port=ports.grpc,
            store_url=plan.store_url,
            redis_address=f"{block.host}:{ports.redis}",
        )
        return plan

    async def _start_programs(self, programs: list[stations.Program]) -> None:
        for program in programs:
            self.children.start(program)
        for program in programs:
            await self._reporting(program.name, self.children.wait_ready(program))

    def _publish_kubeconfig(self) -> None:
        """Copy the API's kubeconfig to where people look for it."""
        source = self._layout.api / "kubeconfig"
        deadline = time.monotonic() + 10
        while not source.exists():
            if time.monotonic() > deadline:
                raise Unavailable(f"the API wrote no {source}")
            time.sleep(0.05)
        layout.write_atomically(self._layout.kubeconfig, source.read_text(), mode=0o600)

    async def _bring_up(self, plan: stations.Plan, cluster: Cluster) -> None:
        nodes = stations.build_nodes(plan)
        for program in nodes:
            self.children.start(program)
        settings = _platform_settings(plan)
        prerequisites = platform.build_prerequisites(settings)
        self.board.starting(stations.PLATFORM, "applying definitions, accounts, configuration")
        await self._reporting(
            stations.PLATFORM,
            installation.apply(cluster, prerequisites, timeout_s=_APPLY_TIMEOUT_S),
        )
        for program in nodes:
            await self._reporting(program.name, self.children.wait_ready(program))
        await self._reporting(
            stations.KUBELET, installation.wait_node(cluster, stations.NODE, timeout_s=60)
        )
        deployments = platform.build_deployments(settings)
        await self._reporting(
            stations.PLATFORM,
            installation.apply(cluster, deployments, timeout_s=_APPLY_TIMEOUT_S),
        )
        self.board.ready(stations.PLATFORM, f"{len(prerequisites) + len(deployments)} objects")
        self.board.starting(stations.OPERATOR)
        self.board.starting(stations.INFERENCE)
        inference = platform.inference_name(plan.base_model)
        await self._wait_deployment(
            cluster, stations.OPERATOR, platform.OPERATOR, timeout_s=_OPERATOR_TIMEOUT_S
        )
        await self._wait_deployment(
            cluster, stations.INFERENCE, inference, timeout_s=_INFERENCE_TIMEOUT_S
        )
        self.board.set_state("ready")

    async def _reporting(self, name: str, work: Awaitable[None]) -> None:
        """Await the work of a station; on failure say so on the board."""
        try:
            await work
        except LoraLandError as error:
            self.board.failed(name, str(error))
            raise

    async def _wait_deployment(
        self, cluster: Cluster, station: str, deployment: str, *, timeout_s: float
    ) -> None:
        begun = asked = time.monotonic()
        while not await self._serves(cluster, station, deployment):
            now = time.monotonic()
            if now - begun > timeout_s:
                detail = self.board.station(station).detail
                self.board.failed(station, f"not ready after {timeout_s:.0f} s: {detail}")
                raise Unavailable(f"{station} is not ready after {timeout_s:.0f} s")
            if now - asked > _DETAIL_EVERY_S:
                asked = now
                detail = await asyncio.to_thread(self._last_line, station)
                self.board.starting(station, detail or await self._pod_summary(cluster, station))
            await asyncio.sleep(_POLL_S)
        await self._report_pods(cluster, station)

    async def _serves(self, cluster: Cluster, station: str, deployment: str) -> bool:
        """Whether the deployment is available, and not only in what an earlier stack wrote."""
        if not await installation.is_available(cluster, deployment):
            return False
        return any(pod.is_ready for pod in await self._pods(cluster, station))

    async def _pods(self, cluster: Cluster, station: str) -> list[installation.PodState]:
        return await installation.pods(cluster, station, since_s=self._begun_s)

    async def _pod_summary(self, cluster: Cluster, station: str) -> str:
        found = await self._pods(cluster, station)
        return found[0].summary if found else "waiting for its pod"

    async def _report_pods(self, cluster: Cluster, station: str) -> None:
        found = await self._pods(cluster, station)
        serving = [pod for pod in found if pod.is_ready]
        if serving:
            address = serving[0].ip
            if station == stations.INFERENCE:
                address += f":{self.board.record.grpc_port}"
            self.board.ready(station, serving[0].name, address=address)
        else:
            self.board.starting(station, found[0].summary if found else "no pod")

    async def _follow(self, cluster: Cluster) -> None:
        """Keep the board true to the pods while the stack runs."""
        while True:
            await asyncio.sleep(_STATUS_EVERY_S)
            for station in (stations.OPERATOR, stations.INFERENCE):
                with contextlib.suppress(ApiError):
                    await self._report_pods(cluster, station)

    def _last_line(self, station: str) -> str:
        return kubectl.pod_log(
            self._layout.kubeconfig,
            platform.SYSTEM_NAMESPACE,
            installation.selector(station),
            num_lines=1,
        )

    def failure_log(self) -> str:
        """Return the end of the log of the station that failed."""
        failed = [s.name for s in self.board.record.stations if s.state == "failed"]
        if not failed:
            return ""
        if failed[0] in (stations.OPERATOR, stations.INFERENCE):
            with contextlib.suppress(LoraLandError):
                return kubectl.pod_log(
                    self._layout.kubeconfig,
                    platform.SYSTEM_NAMESPACE,
                    installation.selector(failed[0]),
                    num_lines=20,
                )
        return self.children.log_tail(failed[0])


def _choose_ports(block: addresses.Block, options: StackOptions) -> stations.Ports:
    host = block.host
    api = (
        addresses.demanded_port(host, options.api_port, option="--api-port")
        if options.api_port
        else addresses.free_port(host, 6443)
    )
    # On a block of its own the pod's address is free by definition; on a shared address not.
    if options.grpc_port and block.is_shared:
        grpc = addresses.demanded_port(host, options.grpc_port, option="--grpc-port")
    elif options.grpc_port or not block.is_shared:
        grpc = options.grpc_port or 8500
    else:
        grpc = addresses.free_port(host, 8500)
    store = addresses.free_port(host, 9000)
    redis = addresses.free_port(host, 6379)
    etcd = addresses.free_port(host, 2379)
    etcd_peer = addresses.free_port(host, 2380, taken=[etcd])
    # Trainers listen on 9400.
    metrics = addresses.free_port(host, 9401) if block.is_shared else 9400
    return stations.Ports(
        api=api,
        store=store,
        redis=redis,
        etcd=etcd,
        etcd_peer=etcd_peer,
        grpc=grpc,
        inference_metrics=metrics,
    )


def _platform_settings(plan: stations.Plan) -> platform.Settings:
    return platform.Settings(
        version=plan.version,
        store_url=plan.store_url,
        store_access_key=plan.credentials.store_access_key,
        store_secret_key=plan.credentials.store_secret_key,
        operator_redis_url=plan.redis_url(redisserver.OPERATOR_USER),
        replica_redis_url=plan.redis_url(redisserver.REPLICA_USER),
        token_sha256=plan.credentials.inference_token_sha256,
        operator_rules=bundle.rules(bundle.OPERATOR_RULES),
        lease_rules=bundle.rules(bundle.LEASE_RULES),
        grpc_port=plan.ports.grpc,
        inference_metrics_port=plan.ports.inference_metrics,
        base_model=plan.base_model,
    )
