"""One pod from its binding to its end: set up, run its containers, tell its status, clean up."""

import asyncio
import contextlib
import datetime as dt
import logging

from loraland_local.apiclient import objects, pod_state, resources
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import earlier, projections, status, volumes
from loraland_local.kubelet.attempt import Surroundings
from loraland_local.kubelet.container import Container
from loraland_local.kubelet.context import Context, now_utc
from loraland_local.kubelet.environment import MissingObjectError
from loraland_local.kubelet.pod_files import PodFiles
from loraland_local.kubelet.sources import Reference
from loraland_local.kubelet.status import PodFacts
from loraland_local.kubelet.status_writer import StatusWriter

_log = logging.getLogger(__name__)
_SETUP_RETRY_S = 1.0
_MAX_SETUP_RETRY_S = 20.0
_TOKEN_CHECK_INTERVAL_S = 60.0
_FORCED_GRACE_S = 1.0


class PodWorker:
    """Looks after one pod of this node."""

    def __init__(self, context: Context, pod: Object) -> None:
        self._context = context
        self._writer = StatusWriter(context.cluster, pod)
        self._files = PodFiles(context, volumes.pod_directory(context.config.state, pod))
        self._deleting = asyncio.Event()
        self._is_vanished = False
        self._failure: tuple[str, str] | None = None
        self._is_over = False
        self._is_shut_down = False
        self._refresh = asyncio.Event()
        self._ip = ""
        self._start_time = (
            objects.parse_time((pod.get("status") or {}).get("startTime")) or now_utc()
        )
        self._records = earlier.recall(pod, now_utc())
        specs = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
        self._containers = [
            Container(
                spec,
                record,
                context,
                read_pod=lambda: self._writer.pod,
                changed=self._writer.notice,
            )
            for spec, record in zip(specs, self._records, strict=True)
        ]
        self.namespace = objects.namespace(pod)
        self._references = projections.list_references(pod)

    def update(self, pod: Object) -> None:
        """Take in the pod's newest state."""
        self._writer.accept(pod)
        if objects.is_deleting(pod):
            self._deleting.set()

    def vanish(self) -> None:
        """Take in that the pod is no longer in the API: its processes have to go at once."""
        self._is_vanished = True
        self._deleting.set()

    def mounts(self, reference: Reference) -> bool:
        """Say whether the pod shows this ConfigMap or Secret as files."""
        return reference in self._references

    def refresh_files(self) -> None:
        self._refresh.set()

    async def shut_down(self, grace_s: float) -> None:
        """Stop the containers because the kubelet ends; the pod stays what it is."""
        self._is_shut_down = True
        self._writer.close()
        await asyncio.gather(*(container.stop(grace_s) for container in self._containers))

    def kill(self) -> None:
        for container in self._containers:
            container.kill()

    async def run(self) -> None:
        """Live the pod's life."""
        if not pod_state.is_terminal(self._writer.pod):
            await self._live()
        await self._deleting.wait()
        if not self._is_vanished:
            # The kubelet alone may say that a pod of its node is really gone.
            pod = self._writer.pod
            await self._context.cluster.delete(
                resources.PODS, *objects.key(pod), uid=objects.uid(pod), grace_period_s=0
            )
        await asyncio.to_thread(self._files.directory.remove)

    async def _live(self) -> None:
        pod = self._writer.pod
        wanted = "" if pod["spec"].get("hostNetwork") else pod.get("status", {}).get("podIP", "")
        is_shared = bool(pod["spec"].get("hostNetwork"))
        self._ip = self._context.config.host if is_shared else self._context.addresses.take(wanted)
        writing = asyncio.create_task(self._writer.run(self._build_status))
        try:
            await self._run_until_over()
            self._is_over = not self._is_shut_down
            if self._is_over:
                await self._writer.write(self._build_status)
        finally:
            writing.cancel()
            await asyncio.wait({writing})
            self._context.addresses.give_back(self._ip)

    def _build_status(self, pod: Object, now: dt.datetime) -> Object:
        facts = PodFacts(
            pod_ip=self._ip,
            host_ip=self._context.config.host,
            start_time=self._start_time,
            is_over=self._is_over,
            failure=self._failure,
        )
        return status.build(pod, self._records, facts, now)

    async def _run_until_over(self) -> None:
        running = asyncio.create_task(self._run_containers())
        deleting = asyncio.create_task(self._deleting.wait())
        deadline_s = self._writer.pod["spec"].get("activeDeadlineSeconds")
        left_s = None
        if deadline_s is not None:
            left_s = float(deadline_s) - (now_utc() - self._start_time).total_seconds()
        try:
            done, _ = await asyncio.wait(
                {running, deleting}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                message = "Pod was active on the node longer than the specified deadline"
                self._failure = ("DeadlineExceeded", message)
            await self._stop_all()
        finally:
            deleting.cancel()
            running.cancel()
            await asyncio.wait({running, deleting})
        if not running.cancelled() and running.exception() is not None:
            raise running.exception() or AssertionError

    def _grace_s(self) -> float:
        pod = self._writer.pod
        if self._is_vanished:
            return _FORCED_GRACE_S
        asked = objects.metadata(pod).get("deletionGracePeriodSeconds")
        if asked is None:
            asked = pod["spec"].get("terminationGracePeriodSeconds", 30)
        return float(asked)

    async def _stop_all(self) -> None:
        """Stop everything that still runs; a grace that is shortened meanwhile counts."""
        stops = [asyncio.create_task(found.stop(self._grace_s())) for found in self._containers]
        waiting = asyncio.gather(*stops)
        began = asyncio.get_running_loop().time()
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=0.5)
            if asyncio.get_running_loop().time() - began > self._grace_s() + 0.5:
                self.kill()
        await waiting

    async def _run_containers(self) -> None:
        around = await self._set_up()
        self._writer.notice()
        keeping = asyncio.create_task(self._keep_files())
        sidecars: list[asyncio.Task[None]] = []
        try:
            if await self._run_init(around, sidecars):
                mains = [found for found in self._containers if not found.record.is_init]
                await asyncio.gather(*(self._run_one(found, around) for found in mains))
            for found in reversed(self._containers):
                if found.record.is_sidecar:
                    await found.stop(self._grace_s())
            await asyncio.gather(*sidecars)
        finally:
            tasks = [keeping, *sidecars]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _run_one(self, container: Container, around: Surroundings) -> None:
        if container.record.exit_code is None:
            await container.run(around)

    async def _run_init(self, around: Surroundings, sidecars: list[asyncio.Task[None]]) -> bool:
        """Run the init containers one after the other; say whether all went well."""
        for container in self._containers:
            record = container.record
            if not record.is_init or (record.exit_code == 0 and not record.is_sidecar):
                continue
            if record.is_sidecar:
                sidecars.append(asyncio.create_task(container.run(around)))
                await container.started.wait()
                continue
            await self._run_one(container, around)
            if record.exit_code != 0:
                return False
        return True

    async def _set_up(self) -> Surroundings:
        """Make volumes, as soon as what they come from is there."""
        pause_s = _SETUP_RETRY_S
        while True:
            try:
                # The address must be known before the first container asks for it.
                await self._writer.write(self._build_status)
                return await self._files.ensure(self._writer.pod)
            except (MissingObjectError, ValueError, ApiError, OSError) as error:
                message = f"MountVolume.SetUp failed: {error}"
                self._context.tell(self._writer.pod, "Warning", "FailedMount", message)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _MAX_SETUP_RETRY_S)

    async def _keep_files(self) -> None:
        """Let mounted ConfigMaps, Secrets and tokens follow their sources."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TOKEN_CHECK_INTERVAL_S):
                    await self._refresh.wait()
            self._refresh.clear()
            try:
                await self._files.refresh(self._writer.pod)
            except (MissingObjectError, ApiError, OSError) as error:
                name = objects.name(self._writer.pod)
                _log.warning("pod %s: files stay as they are: %s", name, error)
