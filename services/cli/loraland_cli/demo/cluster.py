"""What the demo asks the cluster: apply a folder, follow a job, wait for an adapter."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loraland_core import names
from loraland_core.errors import NotFound
from loraland_local import kubectl
from loraland_local.apiclient.cluster import ApiError, Cluster
from loraland_local.apiclient.resources import Resource

from loraland_cli.console import Failure

JOBS = Resource(names.GROUP, names.VERSION, names.FINE_TUNE_JOBS, names.FINE_TUNE_JOB)
ADAPTERS = Resource(names.GROUP, names.VERSION, names.ADAPTERS, names.ADAPTER)
_POLL_S = 0.5
_LOG_LINES = 25

Object = dict[str, Any]


def apply(kubeconfig: Path, source: Path) -> tuple[str, str]:
    """Apply the manifests with kubectl; return its words and the FineTuneJob's ``namespace/name``."""
    result = kubectl.call(kubeconfig, ["apply", "-f", str(source), "-o", "name"])
    if result.returncode != 0:
        raise Failure(f"kubectl apply -f {source}: {result.stderr.strip()}")
    applied = result.stdout.split()
    prefix = f"{names.FINE_TUNE_JOB.lower()}.{names.GROUP}/"
    jobs = [line.removeprefix(prefix) for line in applied if line.startswith(prefix)]
    if len(jobs) != 1:
        raise Failure(f"{source} should hold one FineTuneJob; kubectl applied {applied}")
    return ", ".join(applied), jobs[0]


async def get(cluster: Cluster, resource: Resource, namespace: str, name: str) -> Object:
    found = await cluster.get_or_none(resource, namespace, name)
    if found is None:
        raise NotFound(f"there is no {resource.kind} {name} in namespace {namespace}")
    return found


async def follow_job(
    cluster: Cluster,
    namespace: str,
    name: str,
    *,
    on_status: Callable[[Object], None],
    timeout_s: float,
) -> Object:
    """Return the finished job; ``Failure`` with reason and message where it did not succeed."""
    deadline = time.monotonic() + timeout_s
    while True:
        job = await _tolerant(get(cluster, JOBS, namespace, name))
        if job is not None:
            status = job.get("status") or {}
            on_status(status)
            succeeded = condition(job, names.JobCondition.SUCCEEDED)
            if succeeded.get("status") == "True":
                return job
            if succeeded.get("status") == "False":
                raise Failure(
                    f"FineTuneJob {name} failed: {succeeded.get('reason')}:"
                    f" {succeeded.get('message')}"
                )
            refused = condition(job, names.JobCondition.ACCEPTED)
            if refused.get("status") == "False":
                raise Failure(
                    f"FineTuneJob {name} was refused: {refused.get('reason')}:"
                    f" {refused.get('message')}"
                )
        if time.monotonic() > deadline:
            raise Failure(f"FineTuneJob {name} is not finished after {timeout_s:.0f} s")
        await asyncio.sleep(_POLL_S)


async def wait_adapter(cluster: Cluster, namespace: str, name: str, *, timeout_s: float) -> Object:
    """Return the Adapter once it is Ready; ``Failure`` with the reason where it is refused."""
    deadline = time.monotonic() + timeout_s
    while True:
        adapter = await _tolerant(get(cluster, ADAPTERS, namespace, name))
        if (
            adapter is not None
            and condition(adapter, names.AdapterCondition.READY).get("status") == "True"
        ):
            return adapter
        refusal = _refusal(adapter) if adapter is not None else ""
        if refusal:
            raise Failure(f"Adapter {name} is refused: {refusal}")
        if time.monotonic() > deadline:
            ready = condition(adapter or {}, names.AdapterCondition.READY)
            raise Failure(
                f"Adapter {name} is not Ready after {timeout_s:.0f} s:"
                f" {ready.get('reason', 'no condition yet')} {ready.get('message', '')}"
            )
        await asyncio.sleep(_POLL_S)


async def _tolerant(reading: "asyncio.Future[Object] | Any") -> Object | None:
    """Return what was read, or None while the API does not answer."""
    try:
        found: Object = await reading
    except ApiError as error:
        if error.status and error.status < 500:
            raise Failure(str(error)) from error
        return None
    return found


_FINAL_REFUSALS = (
    names.AdapterCondition.ACCEPTED,
    names.AdapterCondition.ARTIFACT_VERIFIED,
    names.AdapterCondition.COMPATIBLE,
)


def _refusal(adapter: Object) -> str:
    """Return why the adapter will not become Ready by waiting; empty where it still may."""
    for kind in _FINAL_REFUSALS:
        found = condition(adapter, kind)
        if found.get("status") == "False":
            return f"{kind}=False, {found.get('reason')}: {found.get('message')}"
    ready = condition(adapter, names.AdapterCondition.READY)
    if ready.get("reason") == names.Reason.REJECTED_BY_REPLICA:
        return f"{ready.get('reason')}: {ready.get('message')}"
    return ""


def condition(resource: Object, kind: str) -> Object:
    for found in (resource.get("status") or {}).get("conditions") or []:
        if found.get("type") == kind:
            return dict(found)
    return {}


def job_log(kubeconfig: Path, namespace: str, name: str) -> str:
    """Return the end of the log of the job's last training pod."""
    listing = ["get", "pods", "-n", namespace, "-l", f"{names.LABEL_JOB}={name}", "-o", "name"]
    pods = kubectl.call(kubeconfig, [*listing, "--sort-by=.metadata.creationTimestamp"])
    if not pods.stdout.split():
        return ""
    last = pods.stdout.split()[-1]
    log = kubectl.call(kubeconfig, ["logs", "-n", namespace, last, f"--tail={_LOG_LINES}"])
    return log.stdout.strip()
