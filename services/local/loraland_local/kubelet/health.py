"""When probes change what a container counts as: thresholds, and the order of its three probes."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import probes
from loraland_local.kubelet.probes import Target


@dataclasses.dataclass
class Tracker:
    """Counts equal results in a row until they reach their threshold. Pure."""

    is_healthy: bool
    success_threshold: int
    failure_threshold: int
    last: bool | None = None
    run_length: int = 0

    def observe(self, is_success: bool) -> bool:
        """Take one result in; return whether ``is_healthy`` follows it now."""
        self.run_length = self.run_length + 1 if is_success == self.last else 1
        self.last = is_success
        threshold = self.success_threshold if is_success else self.failure_threshold
        if self.run_length < threshold:
            return False
        self.is_healthy = is_success
        return True


@dataclasses.dataclass(frozen=True)
class Reactions:
    """What the container does about its probes."""

    set_started: Callable[[], None]
    set_ready: Callable[[bool], None]
    restart: Callable[[str, Object], Awaitable[None]]
    tell_unhealthy: Callable[[str, str], None]


async def follow(container: Object, target: Target, reactions: Reactions) -> None:
    """Probe the container until cancelled: start-up first, then readiness and liveness."""
    startup = container.get("startupProbe")
    if startup is not None and not await _wait_started(startup, target, reactions):
        return
    reactions.set_started()
    async with asyncio.TaskGroup() as group:
        readiness = container.get("readinessProbe")
        if readiness is None:
            reactions.set_ready(True)
        else:
            group.create_task(_follow_readiness(readiness, target, reactions))
        if container.get("livenessProbe") is not None:
            group.create_task(_follow_liveness(container["livenessProbe"], target, reactions))


def _tracker(probe: Object, *, is_healthy: bool) -> Tracker:
    return Tracker(
        is_healthy=is_healthy,
        success_threshold=int(probe.get("successThreshold") or 1),
        failure_threshold=int(probe.get("failureThreshold") or 3),
    )


def _period_s(probe: Object) -> float:
    return float(probe.get("periodSeconds") or 10)


async def _check(kind: str, probe: Object, target: Target, reactions: Reactions) -> bool:
    problem = await probes.check(probe, target)
    if problem is not None:
        reactions.tell_unhealthy(kind, problem)
    return problem is None


async def _wait_started(probe: Object, target: Target, reactions: Reactions) -> bool:
    tracker = _tracker(probe, is_healthy=False)
    await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
    while True:
        is_success = await _check("Startup", probe, target, reactions)
        if tracker.observe(is_success):
            if not is_success:
                await reactions.restart("startup", probe)
            return is_success
        await asyncio.sleep(_period_s(probe))


async def _follow_readiness(probe: Object, target: Target, reactions: Reactions) -> None:
    tracker = _tracker(probe, is_healthy=False)
    await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
    while True:
        if tracker.observe(await _check("Readiness", probe, target, reactions)):
            reactions.set_ready(tracker.is_healthy)
        await asyncio.sleep(_period_s(probe))


async def _follow_liveness(probe: Object, target: Target, reactions: Reactions) -> None:
    tracker = _tracker(probe, is_healthy=True)
    await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
    while True:
        is_success = await _check("Liveness", probe, target, reactions)
        if tracker.observe(is_success) and not is_success:
            await reactions.restart("liveness", probe)
            return
        await asyncio.sleep(_period_s(probe))
