"""The disk tier: artifacts from S3, shared by the replicas of a node, within a budget of bytes.

Each artifact is fetched once, however many ask, and hashed before it is used; what a restart finds
is hashed again. The store that fails is left alone for a while. Files are the business of
``folders`` and ``fetching``.
"""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from loraland_core.errors import Unavailable
from loraland_core.keys import AdapterRecord

from loraland_inference.adapters import faults
from loraland_inference.adapters.fetching import Fetcher
from loraland_inference.adapters.folders import Folders, LocalAdapter
from loraland_inference.adapters.observer import Observer
from loraland_inference.adapters.policy import Holding, Ledger
from loraland_inference.adapters.states import Event, Places, State

log = logging.getLogger("loraland.adapters")

CONCURRENT_READS = 2
# What a fetch is taken to cost where nobody has measured it.
BYTES_PER_S = 20e6
# A folder that neighbours take away this often in a row has no place here.
MAX_LOSSES = 3
T = TypeVar("T")


class Turns(Protocol):
    """Who downloads what to a node; see ``leases``."""

    def turn(
        self, digest: str, is_done: Callable[[], bool]
    ) -> AbstractAsyncContextManager[bool]: ...


class DiskTier:
    """Fetches what is asked for and keeps what is worth its bytes."""

    def __init__(
        self,
        fetcher: Fetcher,
        root: Path,
        *,
        budget_bytes: int,
        concurrent_fetches: int,
        turns: Callable[[str], Turns],
        places: Places,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetcher = fetcher
        self._root = root
        self._folders = Folders(root)
        self._ledger = Ledger(budget_bytes)
        self._build_turns = turns
        self._turns: Turns
        self._places = places
        self._observer = observer
        self._clock = clock
        # Threads of its own for each kind of wait: a store that hangs must not keep an adapter that
        # is on the disk already from being read.
        self._downloads = ThreadPoolExecutor(concurrent_fetches, thread_name_prefix="fetch")
        self._reads = ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="disk")
        self._verified: dict[str, LocalAdapter] = {}
        self._fetches: dict[str, asyncio.Task[LocalAdapter]] = {}
        # What is on its way, by digest.
        self._incoming_bytes: dict[str, int] = {}
        self._is_closed = False

    @property
    def used_bytes(self) -> int:
        return self._ledger.used_bytes

    @property
    def free_bytes(self) -> int:
        return max(0, self._ledger.free_bytes - sum(self._incoming_bytes.values()))

    def prepare(self) -> None:
        """Make the folder, find what is there, and remove what a killed process left half written.

        Raises ``OSError``. Its argument to ``turns`` names the disk.
        """
        self._turns = self._build_turns(self._folders.open())
        self._note(self._folders.scan())

    def has(self, digest: str) -> bool:
        return digest in self._verified

    @asynccontextmanager
    async def held(self, record: AdapterRecord) -> AsyncIterator[LocalAdapter]:
        """Enter with the artifact's folder, fetched if it is not here; it stays during the block.

        Raises ``ArtifactInvalid`` for files that are not what they should be, ``Unavailable`` where
        the store does not answer or the disk is full.
        """
        local, holding, lock = await self._hold(record)
        try:
            yield local
        finally:
            holding.references -= 1
            self._folders.unlock(lock)
            await self._make_room()

    async def ensure(self, record: AdapterRecord) -> None:
        """Have the artifact on the disk, without holding it there."""
        async with self.held(record):
            pass

    async def discard(self, digest: str) -> bool:
        """Remove an artifact that nobody shall have any more; False while somebody uses it."""
        holding = self._ledger.find(digest)
        if digest in self._fetches or (holding is not None and holding.references):
            return False
        if holding is not None:
            self._lose(digest)
        if await self._read(self._folders.remove, digest):
            self._observer.evicted("disk")
        return True

    async def close(self) -> None:
        self._is_closed = True
        for task in list(self._fetches.values()):
            task.cancel()
        await asyncio.gather(*self._fetches.values(), return_exceptions=True)
        for executor in (self._downloads, self._reads):
            executor.shutdown(wait=False, cancel_futures=True)
        self._folders.close()

    async def _hold(self, record: AdapterRecord) -> tuple[LocalAdapter, Holding, int]:
        digest = record.digest
        for _ in range(MAX_LOSSES):
            local = self._verified.get(digest) or await self._join(record)
            lock = self._folders.lock(digest)
            holding = self._ledger.find(digest)
            if lock is not None and holding is not None:
                self._places.retry(digest)
                if self._places.state(digest) is State.ABSENT:
                    self._places.move(digest, Event.FOUND)
                holding.references += 1
                holding.touch(self._clock())
                return local, holding, lock
            if lock is not None:
                self._folders.unlock(lock)
            # A neighbour made room with it.
            self._lose(digest)
        raise Unavailable(f"{digest[:12]} vanishes from {self._root} again and again")

    async def _join(self, record: AdapterRecord) -> LocalAdapter:
        """Wait for the one fetch of the artifact that is under way, or that this call starts."""
        digest = record.digest
        task = self._fetches.get(digest)
        if task is None:
            task = self._fetches[digest] = asyncio.create_task(self._fetch(record))
            task.add_done_callback(functools.partial(self._forget, digest))
        # A caller that gives up does not take the fetch from the others.
        return await asyncio.shield(task)

    def _forget(self, digest: str, task: asyncio.Task[LocalAdapter]) -> None:
        self._fetches.pop(digest, None)
        # Looked at, so that the error of a fetch that nobody waits for is not reported as lost.
        if not task.cancelled():
            task.exception()

    async def _fetch(self, record: AdapterRecord) -> LocalAdapter:
        digest = record.digest
        try:
            local = await self._read(self._folders.find, digest)
            if local is not None:
                self._keep(local, self._estimate_s(local.size_bytes))
                return local
            self._places.admit(digest)
            # What is nearer already may be brought to the disk again without leaving its state.
            if self._places.state(digest) is State.ABSENT:
                self._places.move(digest, Event.FETCH)
            local, duration_s = await self._bring(record)
        except Exception as error:
            failure = faults.translate(error, self._root)
            self._fail(digest, failure)
            if failure is error:
                raise
            raise failure from error
        except asyncio.CancelledError:
            self._fail(digest, Unavailable("this replica ends"))
            raise
        if self._places.state(digest) is State.FETCHING:
            self._places.move(digest, Event.FETCHED)
        self._keep(local, duration_s)
        self._observer.moved("disk", duration_s)
        log.info("fetched %s (%d bytes)", record.uri, local.size_bytes)
        return local

    def _fail(self, digest: str, error: Exception) -> None:
        if self._places.state(digest) is State.FETCHING:
            self._places.fail(digest, error)
            self._observer.fetch_failed(getattr(error, "reason", type(error).__name__))

    def _keep(self, local: LocalAdapter, load_s: float) -> None:
        if self._ledger.find(local.digest) is None:
            self._ledger.add(
                local.digest, size_bytes=local.size_bytes, load_s=load_s, now_s=self._clock()
            )
        self._verified[local.digest] = local

    async def _bring(self, record: AdapterRecord) -> tuple[LocalAdapter, float]:
        """Download the artifact when it is this replica's turn, or find what a neighbour brought."""
        digest = record.digest
        async with self._turns.turn(digest, self._folders.path(digest).exists) as is_ours:
            local = None if is_ours else await self._read(self._folders.find, digest)
            if local is not None:
                return local, self._estimate_s(local.size_bytes)
            try:
                duration_s = await self._download(record)
            finally:
                self._incoming_bytes.pop(digest, None)
        local = await self._read(self._folders.read, digest)
        if local is None:
            raise Unavailable(f"{digest[:12]} was removed from {self._root} right after it came")
        return local, duration_s

    async def _download(self, record: AdapterRecord) -> float:
        loop = asyncio.get_running_loop()
        content = await loop.run_in_executor(self._downloads, self._fetcher.read_manifest, record)
        self._incoming_bytes[record.digest] = content[0].size_bytes
        self._note(await self._read(self._folders.scan))
        await self._make_room()
        fill = functools.partial(self._fetcher.download, record, content)
        duration_s = await loop.run_in_executor(
            self._downloads, self._folders.write, record.digest, fill
        )
        self._observer.fetched(content[0].size_bytes)
        return duration_s

    async def _read(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reads, work, *arguments)

    # Room.

    async def _make_room(self) -> None:
        """Evict until what is here and what is on its way fit, or all else is in use."""
        victims = self._ledger.victims(sum(self._incoming_bytes.values()), self._clock())
        for holding in victims:
            self._lose(holding.digest)
        for holding in victims:
            # At the end of the process the files stay for the next one.
            if self._is_closed:
                return
            try:
                if await self._read(self._folders.remove, holding.digest):
                    self._observer.evicted("disk")
            except OSError as error:
                # Whoever let go of another one is not to blame.
                log.warning("%s stays in %s: %s", holding.digest[:12], self._root, error)

    def _note(self, found: "dict[str, Any]") -> None:
        """Take into account what the process before left, and what neighbours brought or removed."""
        now_s = self._clock()
        for digest in self._ledger.digests - set(found) - set(self._fetches):
            holding = self._ledger.find(digest)
            if holding is not None and not holding.references:
                self._lose(digest)
        for digest in set(found) - self._ledger.digests - set(self._fetches):
            size_bytes = found[digest].size_bytes
            holding = self._ledger.add(
                digest, size_bytes=size_bytes, load_s=self._estimate_s(size_bytes), now_s=now_s
            )
            holding.used_at_s = now_s - found[digest].age_s

    def _lose(self, digest: str) -> None:
        """Forget an artifact whose folder goes or has gone."""
        self._ledger.remove(digest)
        if self._verified.pop(digest, None) is not None and self._places.state(digest) not in (
            State.ABSENT,
            State.FETCHING,
        ):
            self._places.move(digest, Event.DISK_EVICTED)

    def _estimate_s(self, size_bytes: int) -> float:
        return size_bytes / BYTES_PER_S
