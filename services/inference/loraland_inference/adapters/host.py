"""The host tier: adapters packed as a slot takes them, in files that the engine process maps.

The folder is best on a tmpfs; elsewhere the page cache keeps the files in memory as long as there is
room. They belong to this process and end with it: packing again costs less than trusting them.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loraland_core.errors import ArtifactInvalid, Unavailable
from loraland_core.keys import AdapterRecord
from loraland_core.prompts import PromptTemplate

from loraland_inference import messages
from loraland_inference.adapters.folders import LocalAdapter
from loraland_inference.adapters.observer import Observer
from loraland_inference.adapters.policy import Ledger
from loraland_inference.adapters.states import Event, Places
from loraland_inference.adapters.workspace import Workspace


@dataclass(frozen=True)
class PackedAdapter:
    """An adapter as the engine maps it."""

    digest: str
    path: Path
    size_bytes: int
    prompt: PromptTemplate


class Disk(Protocol):
    def has(self, digest: str) -> bool: ...

    def held(self, record: AdapterRecord) -> AbstractAsyncContextManager[LocalAdapter]: ...


class Packer(Protocol):
    async def pack(self, digest: str, folder: str, path: str) -> int: ...


class _Packing:
    """Work under way: each of those who wait for it is owed a reference."""

    def __init__(self) -> None:
        self.num_waiting = 0
        self.is_done = False
        self.task: asyncio.Task[PackedAdapter]


class HostTier:
    """Packs what is asked for, each artifact once, and keeps what is worth its bytes."""

    def __init__(
        self,
        *,
        folder: Path,
        budget_bytes: int,
        disk: Disk,
        packer: Packer,
        places: Places,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workspace = Workspace(folder)
        self._ledger = Ledger(budget_bytes)
        self._disk = disk
        self._packer = packer
        self._places = places
        self._observer = observer
        self._clock = clock
        self._packed: dict[str, PackedAdapter] = {}
        self._packing: dict[str, _Packing] = {}
        # Packed bytes for one of the artifact, as last seen: how much room the next one needs.
        self._ratio = 1.0

    def prepare(self) -> None:
        """Make the folder and remove what dead processes left; raise ``OSError``."""
        self._workspace.open()

    @property
    def used_bytes(self) -> int:
        return self._ledger.used_bytes

    @property
    def free_bytes(self) -> int:
        return self._ledger.free_bytes

    def has(self, digest: str) -> bool:
        return digest in self._packed

    async def take(self, record: AdapterRecord) -> PackedAdapter:
        """Return the packed adapter with a reference on it, which ``release`` gives back.

        Raises what the disk tier raises, and ``ArtifactInvalid`` for what the engine refuses.
        """
        digest = record.digest
        holding = self._ledger.find(digest)
        if holding is not None:
            holding.references += 1
            holding.touch(self._clock())
            return self._packed[digest]
        packing = self._packing.get(digest)
        if packing is None:
            packing = self._packing[digest] = _Packing()
            packing.task = asyncio.create_task(self._pack(record, packing))
            packing.task.add_done_callback(lambda t: self._forget(digest, t))
        packing.num_waiting += 1
        try:
            # A caller that gives up does not take the work from the others.
            return await asyncio.shield(packing.task)
        except BaseException:
            packing.num_waiting -= 1
            if packing.is_done:
                self.release(digest)
            raise

    def release(self, digest: str) -> None:
        """Give a reference back; what is over the budget goes then."""
        holding = self._ledger.find(digest)
        if holding is None:
            return
        assert holding.references > 0, digest
        holding.references -= 1
        self._trim(0)

    def drop(self, digest: str) -> None:
        """Forget a packed file that is no longer there, or no longer wanted."""
        self._ledger.remove(digest)
        packed = self._packed.pop(digest, None)
        if packed is not None:
            # What a slot has mapped stays until the slot lets go of it.
            packed.path.unlink(missing_ok=True)
            self._places.move(digest, Event.HOST_EVICTED)
            if not self._disk.has(digest):
                self._places.move(digest, Event.DISK_EVICTED)
            self._observer.evicted("host")

    def discard(self, digest: str) -> bool:
        """Forget an artifact that nobody shall have any more; False while somebody uses it."""
        holding = self._ledger.find(digest)
        if digest in self._packing or (holding is not None and holding.references):
            return False
        self.drop(digest)
        return True

    async def close(self) -> None:
        tasks = [packing.task for packing in self._packing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._workspace.close()

    def _forget(self, digest: str, task: asyncio.Task[PackedAdapter]) -> None:
        self._packing.pop(digest, None)
        # Looked at, so that the error of work that nobody waits for is not reported as lost.
        if not task.cancelled():
            task.exception()

    async def _pack(self, record: AdapterRecord, packing: _Packing) -> PackedAdapter:
        digest = record.digest
        async with self._disk.held(record) as local:
            started_s = self._clock()
            path = self._workspace.folder / f"{digest}.safetensors"
            self._trim(int(local.size_bytes * self._ratio))
            size_bytes = await self._write(local, path)
            self._ratio = size_bytes / max(1, local.size_bytes)
            duration_s = self._clock() - started_s
            self._trim(size_bytes)
            holding = self._ledger.add(
                digest, size_bytes=size_bytes, load_s=duration_s, now_s=self._clock()
            )
            holding.references, packing.is_done = packing.num_waiting, True
            packed = self._packed[digest] = PackedAdapter(digest, path, size_bytes, local.prompt)
            self._places.move(digest, Event.PACKED)
            self._observer.moved("host", duration_s)
            return packed

    async def _write(self, local: LocalAdapter, path: Path) -> int:
        try:
            return await self._packer.pack(local.digest, str(local.folder), str(path))
        except ArtifactInvalid as error:
            if error.reason != messages.HOST_FULL:
                self._places.fail(local.digest, error)
                raise
            # The folder is smaller than its budget: keep what is in use alone.
            self._trim(self._ledger.budget_bytes)
            raise Unavailable(
                f"no room to pack {local.digest[:12]} in {self._workspace.folder}: {error}",
                retry_after_s=2.0,
            ) from error

    def _trim(self, incoming_bytes: int) -> None:
        for holding in self._ledger.victims(incoming_bytes, self._clock()):
            self.drop(holding.digest)
