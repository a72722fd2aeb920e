"""One container of a pod: starts, probes, restarts and stops its process."""

import asyncio
import contextlib
import functools
import logging
import pathlib
import uuid
from collections.abc import Callable, Sequence

from loraland_local.apiclient import objects, quantities
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import attempt, health, hooks, memory, probes, process
from loraland_local.kubelet.attempt import Surroundings
from loraland_local.kubelet.backoff import CrashBackoff
from loraland_local.kubelet.context import Context, now_utc
from loraland_local.kubelet.environment import MissingObjectError
from loraland_local.kubelet.logs import LogWriter
from loraland_local.kubelet.process import Command, Process, StartError
from loraland_local.kubelet.status import ContainerRecord

_log = logging.getLogger(__name__)

_CONFIG_RETRY_S = 3.0
_START_ERROR_EXIT_CODE = 128
_MAX_PROBE_OUTPUT_BYTES = 10 * 1024


class Container:
    """Runs until its restart policy or ``stop`` ends it; tells its state through its record."""

    def __init__(
        self,
        spec: Object,
        record: ContainerRecord,
        context: Context,
        *,
        read_pod: Callable[[], Object],
        changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.record = record
        self._context = context
        self._read_pod = read_pod
        self._changed = changed
        self._stopping = asyncio.Event()
        self._process: Process | None = None
        self._command: Command | None = None
        self._backoff = CrashBackoff(context.config.crash_backoff_s)
        self._pull_backoff = CrashBackoff(context.config.crash_backoff_s)
        self._kill_reason = ""
        self.started = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    async def run(self, around: Surroundings) -> None:
        """Run attempt after attempt until there is no reason for another one."""
        while not self._stopping.is_set():
            started = asyncio.get_running_loop().time()
            self._idle.clear()
            try:
                exit_code = await self._run_attempt(around)
            finally:
                self._idle.set()
            if exit_code is None or self._stopping.is_set() or not self._restarts(exit_code):
                return
            ran_for_s = asyncio.get_running_loop().time() - started
            await self._wait_restart(self._backoff.next_s(ran_for_s))

    async def stop(self, grace_s: float) -> None:
        """End the container for good, gracefully if it has the time; returns with its state set."""
        self._stopping.set()
        if self._process is not None:
            self._tell("Normal", "Killing", f"Stopping container {self.name}")
            await self._stop_process(grace_s)
        await self._idle.wait()

    def kill(self) -> None:
        """End the container at once."""
        self._stopping.set()
        if self._process is not None:
            self._process.kill()

    def _restarts(self, exit_code: int) -> bool:
        policy = self._read_pod()["spec"].get("restartPolicy", "Always")
        if self.record.is_sidecar:
            return True
        if self.record.is_init and policy == "Always":
            policy = "OnFailure"
        return policy == "Always" or (policy == "OnFailure" and exit_code != 0)

    async def _wait_restart(self, pause_s: float) -> None:
        record = self.record
        record.last_state = record.state
        if pause_s > 0:
            pod = self._read_pod()
            where = f"{objects.name(pod)}_{objects.namespace(pod)}({objects.uid(pod)})"
            self._wait_for(
                "CrashLoopBackOff",
                f"back-off {pause_s:g}s restarting failed container={self.name} pod={where}",
            )
            self._tell(
                "Warning",
                "BackOff",
                f"Back-off restarting failed container {self.name} in pod {where}",
            )
            await self._pause(pause_s)
        if not self._stopping.is_set():
            record.restart_count += 1

    def _wait_for(self, reason: str, message: str = "") -> None:
        waiting = {"reason": reason, **({"message": message} if message else {})}
        self._set_state({"waiting": waiting})

    def _set_state(self, state: Object) -> None:
        self.record.state = state
        if "running" not in state:
            self.record.is_ready = False
            self.record.is_started = False
        self._changed()

    async def _pause(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()

    async def _run_attempt(self, around: Surroundings) -> int | None:
        """Run once; return the exit code, or None when stopped before the start."""
        prepared = await self._prepare(around)
        if prepared is None:
            return None
        self._command, message_path = prepared
        pod = self._read_pod()
        directory = self._context.logs.pod_directory(*objects.key(pod), objects.uid(pod))
        log = self._context.logs.open(directory, self.name, self.record.restart_count)
        self.record.container_id = f"loraland://{uuid.uuid4().hex}{uuid.uuid4().hex}"
        self._kill_reason = ""
        try:
            return await self._run_process(self._command, log, message_path)
        except asyncio.CancelledError:
            if self._process is not None:
                self._process.kill()
            raise
        finally:
            self._process = None
            self._context.logs.close(log)

    async def _prepare(self, around: Surroundings) -> tuple[Command, pathlib.Path] | None:
        """Wait until image, configuration and files are there."""
        while not self._stopping.is_set():
            try:
                images = self._context.load_images()
                image = images.find(self.spec["image"])
                if image is None:
                    await self._wait_image(images.missing_message(self.spec["image"]))
                    continue
                prepared = await attempt.prepare(
                    self.spec, self._read_pod(), image, around, self._context
                )
            except (MissingObjectError, ValueError) as error:
                self._wait_for("CreateContainerConfigError", str(error))
                self._tell("Warning", "Failed", f"Error: {error}")
            except (ApiError, OSError) as error:
                self._wait_for("CreateContainerError", str(error))
            else:
                message = f'Container image "{self.spec["image"]}" already present on machine'
                self._tell("Normal", "Pulled", message)
                return prepared
            await self._pause(_CONFIG_RETRY_S)
        return None

    async def _wait_image(self, message: str) -> None:
        self._wait_for("ErrImagePull", message)
        self._tell("Warning", "Failed", message)
        pause_s = self._pull_backoff.next_s(0) or 1.0
        await self._pause(min(pause_s, 1.0))
        self._wait_for("ImagePullBackOff", f"Back-off pulling image: {message}")
        await self._pause(pause_s)

    async def _run_process(
        self, command: Command, log: LogWriter, message_path: pathlib.Path
    ) -> int:
        started_at = None
        try:
            self._process = await Process.start(command, log.write)
        except StartError as error:
            log.write("stderr", f"{error}\n".encode())
            self._tell("Warning", "Failed", f"Error: {error}")
            exit_code, reason, message = _START_ERROR_EXIT_CODE, "StartError", str(error)
        else:
            started_at = objects.format_time(now_utc())
            exit_code = await self._supervise(self._process, started_at)
            reason = self._kill_reason
            message = attempt.read_message(self.spec, exit_code, message_path, log.path)
        self._set_state(
            attempt.build_terminated(
                exit_code,
                message=message,
                reason=reason,
                started_at=started_at,
                finished_at=objects.format_time(now_utc()),
                container_id=self.record.container_id,
            )
        )
        return exit_code

    async def _supervise(self, running: Process, started_at: str) -> int:
        """Watch over the running process until it ends."""
        if self._stopping.is_set():
            running.kill()
        self._set_state({"running": {"startedAt": started_at}})
        self._tell("Normal", "Created", "Container created")
        self._tell("Normal", "Started", "Container started")
        watchers = [asyncio.create_task(self._follow_health())]
        limit = ((self.spec.get("resources") or {}).get("limits") or {}).get("memory")
        if limit:
            limit_bytes = int(quantities.parse(limit))
            watchers.append(
                asyncio.create_task(memory.watch(running.pid, limit_bytes, self._kill_for_memory))
            )
        try:
            return await running.wait()
        finally:
            for watcher in watchers:
                watcher.cancel()
            for problem in await asyncio.gather(*watchers, return_exceptions=True):
                if isinstance(problem, Exception):
                    _log.error("%s: watching failed: %r", self.name, problem)

    def _kill_for_memory(self) -> None:
        self._kill_reason = "OOMKilled"
        if self._process is not None:
            self._process.kill()

    async def _follow_health(self) -> None:
        hook = (self.spec.get("lifecycle") or {}).get("postStart")
        if hook is not None:
            problem = await hooks.run(hook, self._target(), self._grace_s())
            if problem is not None:
                self._tell("Warning", "FailedPostStartHook", problem)
                await self._stop_process(self._grace_s())
                return
        reactions = health.Reactions(
            set_started=self._set_started,
            set_ready=self._set_ready,
            restart=self._restart,
            tell_unhealthy=self._tell_unhealthy,
        )
        await health.follow(self.spec, self._target(), reactions)

    def _target(self) -> probes.Target:
        ports = {
            port["name"]: int(port["containerPort"])
            for port in self.spec.get("ports") or []
            if port.get("name")
        }
        host = (self._read_pod().get("status") or {}).get("podIP") or "127.0.0.1"
        return probes.Target(host, ports, self._execute)

    async def _execute(self, arguments: Sequence[str], timeout_s: float) -> tuple[int, str]:
        assert self._command is not None
        command = Command(arguments, self._command.environment, self._command.directory)
        try:
            return await process.run(command, timeout_s, _MAX_PROBE_OUTPUT_BYTES)
        except StartError as error:
            return 127, str(error)

    def _set_started(self) -> None:
        self.record.is_started = True
        self.started.set()
        self._changed()

    def _set_ready(self, is_ready: bool) -> None:
        self.record.is_ready = is_ready
        self._changed()

    def _tell_unhealthy(self, kind: str, problem: str) -> None:
        self._tell("Warning", "Unhealthy", f"{kind} probe failed: {problem}")

    async def _restart(self, kind: str, probe: Object) -> None:
        message = f"Container {self.name} failed {kind} probe, will be restarted"
        self._tell("Normal", "Killing", message)
        grace_s = probe.get("terminationGracePeriodSeconds")
        # Not awaited here: the end of the process cancels the task that this runs in.
        self._stop_task = asyncio.create_task(
            self._stop_process(self._grace_s() if grace_s is None else float(grace_s))
        )

    def _grace_s(self) -> float:
        return float(self._read_pod()["spec"].get("terminationGracePeriodSeconds", 30))

    async def _stop_process(self, grace_s: float) -> None:
        running = self._process
        if running is None:
            return
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        before = None if hook is None else functools.partial(self._run_pre_stop, hook)
        await running.stop(grace_s, before)

    async def _run_pre_stop(self, hook: Object) -> None:
        problem = await hooks.run(hook, self._target(), self._grace_s())
        if problem is not None:
            self._tell("Warning", "FailedPreStopHook", problem)

    def _tell(self, kind: str, reason: str, message: str) -> None:
        field = "initContainers" if self.record.is_init else "containers"
        path = f"spec.{field}{{{self.name}}}"
        self._context.tell(self._read_pod(), kind, reason, message, field_path=path)
