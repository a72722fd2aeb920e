"""Follows the pods that are bound to this node, and gives each a worker."""

import asyncio
import logging
import shutil

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.informer import Informer
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import claims
from loraland_local.kubelet.context import Context
from loraland_local.kubelet.pod_worker import PodWorker

_log = logging.getLogger(__name__)
_RESTART_WORKER_S = 2.0
_SHUTDOWN_MARGIN_S = 1.0


class Kubelet:
    """The pods of one node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        node_name = context.config.node_name
        self._pods = Informer(
            context.cluster, resources.PODS, fieldSelector=f"spec.nodeName={node_name}"
        )
        self._mounted = [
            Informer(context.cluster, resource)
            for resource in (resources.CONFIG_MAPS, resources.SECRETS)
        ]
        self._claims = Informer(context.cluster, resources.PERSISTENT_VOLUME_CLAIMS)
        self._releases: set[asyncio.Task[None]] = set()
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look after the node's pods until cancelled; then stop their processes."""
        try:
            async with asyncio.TaskGroup() as group:
                self._pods.add_listener(self._notice_pod)
                for informer in self._mounted:
                    kind = informer.resource.kind
                    informer.add_listener(
                        lambda obj, kind=kind: self._notice_mounted(kind, obj)  # type: ignore[misc]
                    )
                    group.create_task(informer.run())
                self._claims.add_listener(self._notice_claim)
                group.create_task(self._claims.run())
                group.create_task(self._pods.run())
                group.create_task(self._prune())
        finally:
            await self._shut_down()

    def _notice_pod(self, pod: Object) -> None:
        uid = objects.uid(pod)
        known = self._pods.get(objects.key(pod))
        is_there = known is not None and objects.uid(known) == uid
        worker = self._workers.get(uid)
        if worker is None and is_there:
            worker = self._workers[uid] = PodWorker(self._context, pod)
            task = self._tasks[uid] = asyncio.create_task(self._run_worker(uid, worker))
            task.add_done_callback(lambda _: self._forget(uid))
        if worker is not None and is_there:
            worker.update(pod)
        elif worker is not None:
            worker.vanish()

    async def _prune(self) -> None:
        """Remove the files of pods that went while no kubelet was there."""
        await self._pods.wait_synced()
        for directory in (self._context.config.state / "pods").iterdir():
            if directory.name not in self._workers:
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    def _forget(self, uid: str) -> None:
        self._workers.pop(uid, None)
        self._tasks.pop(uid, None)

    async def _run_worker(self, uid: str, worker: PodWorker) -> None:
        while True:
            try:
                await worker.run()
            except Exception:
                _log.exception("pod %s: its worker failed; starting it again", uid)
                worker.kill()
                await asyncio.sleep(_RESTART_WORKER_S)
            else:
                return

    def _notice_mounted(self, kind: str, obj: Object) -> None:
        for worker in self._workers.values():
            if worker.namespace == objects.namespace(obj) and worker.mounts(
                (kind, objects.name(obj))
            ):
                worker.refresh_files()

    def _notice_claim(self, claim: Object) -> None:
        if self._claims.get(objects.key(claim)) is None:
            task = asyncio.create_task(self._release(claim))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    async def _release(self, claim: Object) -> None:
        try:
            await claims.release(self._context.cluster, self._context.claims, claim)
        except ApiError as error:
            _log.warning("volume of claim %s: %s", objects.name(claim), error)

    async def _shut_down(self) -> None:
        grace_s = self._context.config.shutdown_grace_s
        stops = [
            asyncio.create_task(worker.shut_down(grace_s)) for worker in self._workers.values()
        ]
        if stops:
            await asyncio.wait(stops, timeout=grace_s + _SHUTDOWN_MARGIN_S)
        tasks = [*stops, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
