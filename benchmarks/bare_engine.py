"""Drives the engine as a library, in this process: no gRPC, no pipe, no S3.

Plays the part of the server around it: a thread packs each adapter once and maps the packed file
whenever the adapter comes into a slot; slots go by last use, and a request waits until its adapter is
in one.
"""

import copy
import tempfile
import time
from collections import Counter, OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from loraland_engine.engine import Engine
from loraland_engine.lora import LoraAdapter
from loraland_engine.sequence import SamplingParams
from measures import Row, Run
from workload import Request

# Whoever waited so long for a slot gets one: an adapter in use gives way, and takes no new requests.
DRAIN_AFTER_S = 0.25
IDLE_S = 0.001


class Residents:
    """Which adapters are in slots, and which only packed."""

    def __init__(self, engine: Engine, folders: list[Path], *, root: Path) -> None:
        self.num_slots = engine.config.num_slots
        self._engine = engine
        self._folders = folders
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="adapter-reader")
        self._folder = Path(tempfile.mkdtemp(dir=root, prefix="packed-"))
        self._packed: dict[int, Future[Path]] = {}
        # On their way into a slot.
        self._mapped: dict[int, Future[LoraAdapter]] = {}
        # Oldest use first.
        self._slots: OrderedDict[int, None] = OrderedDict()
        self._num_using: Counter[int] = Counter()
        self._draining: int | None = None

    def tier(self, adapter: int) -> str:
        if adapter in self._slots:
            return "slot"
        return "host" if adapter in self._packed and self._packed[adapter].done() else "disk"

    def prefetch(self, adapter: int) -> None:
        if adapter not in self._packed:
            self._packed[adapter] = self._reader.submit(self._pack, adapter)

    def read_all(self, adapters: list[int]) -> None:
        """Have the adapters packed when this returns."""
        for adapter in adapters:
            self.prefetch(adapter)
        for adapter in adapters:
            self._packed[adapter].result()

    def settle(self) -> None:
        """Return when everything that was begun is packed and mapped."""
        self._reader.submit(lambda: None).result()

    def resize(self, num_slots: int) -> None:
        """Use so many slots from now on: fill them with what was packed, or empty the others."""
        self.num_slots = num_slots
        while len(self._slots) > num_slots:
            self._remove(next(iter(self._slots)))
        for adapter in self._packed:
            if adapter not in self._slots and len(self._slots) < num_slots:
                self._insert(adapter, self._map(adapter))

    def acquire(self, adapter: int, waited_s: float) -> bool:
        """Put the adapter into a slot if that is possible now, and hold it there."""
        if adapter == self._draining:
            # Whoever it was to make room for may long have another slot.
            if waited_s <= DRAIN_AFTER_S:
                return False
            self._draining = None
        if adapter not in self._slots:
            self.prefetch(adapter)
            if adapter not in self._mapped:
                self._mapped[adapter] = self._reader.submit(self._map, adapter)
            if not self._mapped[adapter].done() or not self._make_room(waited_s):
                return False
            self._insert(adapter, self._mapped.pop(adapter).result())
        self._slots.move_to_end(adapter)
        self._num_using[adapter] += 1
        return True

    def release(self, adapter: int) -> None:
        self._num_using[adapter] -= 1

    def _make_room(self, waited_s: float) -> bool:
        if len(self._slots) < self.num_slots:
            return True
        idle = [a for a in self._slots if not self._num_using[a]]
        if idle:
            self._remove(self._draining if self._draining in idle else idle[0])
            return True
        if waited_s > DRAIN_AFTER_S and self._draining is None:
            self._draining = min(self._slots, key=lambda a: self._num_using[a])
        return False

    def _pack(self, adapter: int) -> Path:
        path = self._folder / str(adapter)
        self._engine.adapters.pack(self._folders[adapter], path)
        return path

    def _map(self, adapter: int) -> LoraAdapter:
        return self._engine.adapters.read_packed(self._packed[adapter].result())

    def _insert(self, adapter: int, read: LoraAdapter) -> None:
        self._engine.insert_adapter(str(adapter), read)
        self._slots[adapter] = None

    def _remove(self, adapter: int) -> None:
        del self._slots[adapter]
        self._engine.remove_adapter(str(adapter))
        if adapter == self._draining:
            self._draining = None


class _Progress:
    """One request on its way."""

    def __init__(self, request: Request, arrival_s: float, tier: str) -> None:
        self.request = request
        self.arrival_s = arrival_s
        self.tier = tier
        self.token_times_s: list[float] = []

    def row(self) -> Row:
        return Row(
            index=self.request.index,
            adapter=self.request.adapter,
            tier=self.tier,
            input_tokens=len(self.request.token_ids),
            arrival_s=self.arrival_s,
            token_times_s=self.token_times_s,
        )


class BareEngine:
    """Runs workloads over one engine; adapters stay where a run left them.

    Packed files go into a new folder within ``root``.
    Targets with another number of slots, ``with_slots``, share the engine and what was packed.
    """

    def __init__(self, engine: Engine, folders: list[Path], *, root: Path) -> None:
        self._engine = engine
        self._residents = Residents(engine, folders, root=root)
        self._num_slots = engine.config.num_slots

    def with_slots(self, num_slots: int) -> "BareEngine":
        other = copy.copy(self)
        other._num_slots = num_slots
        return other

    def warm_up(self, requests: list[Request]) -> None:
        """Pack every adapter, so that a run maps files and packs none."""
        self._residents.read_all(sorted({r.adapter for r in requests if r.adapter is not None}))

    def run(self, requests: list[Request], *, concurrency: int) -> Run:
        self._residents.resize(self._num_slots)
        return _Pass(self._engine, self._residents, requests, concurrency).run()


class _Pass:
    def __init__(
        self, engine: Engine, residents: Residents, requests: list[Request], concurrency: int
    ) -> None:
        self._engine = engine
        self._residents = residents
        self._coming = deque(requests)
        self._concurrency = concurrency
        self._waiting: list[_Progress] = []
        self._running: dict[str, _Progress] = {}
        self._rows: list[Row] = []
        self._start_s = 0.0

    def run(self) -> Run:
        self._start_s, cpu_start_s = time.perf_counter(), time.process_time()
        while self._coming or self._waiting or self._running:
            self._arrive()
            self._submit()
            if self._engine.has_work():
                self._step()
            else:
                time.sleep(IDLE_S)
        return Run(self._rows, self._now_s(), time.process_time() - cpu_start_s)

    def _now_s(self) -> float:
        return time.perf_counter() - self._start_s

    def _arrive(self) -> None:
        while self._coming:
            request = self._coming[0]
            in_flight = len(self._waiting) + len(self._running)
            if request.arrival_s is None and in_flight >= self._concurrency:
                return
            if request.arrival_s is not None and request.arrival_s > self._now_s():
                return
            self._coming.popleft()
            arrival_s = self._now_s() if request.arrival_s is None else request.arrival_s
            tier = "base" if request.adapter is None else self._residents.tier(request.adapter)
            self._waiting.append(_Progress(request, arrival_s, tier))

    def _submit(self) -> None:
        left = []
        for progress in self._waiting:
            adapter = progress.request.adapter
            waited_s = self._now_s() - progress.arrival_s
            if not (adapter is None or self._residents.acquire(adapter, waited_s)):
                left.append(progress)
                continue
            request_id = str(progress.request.index)
            self._running[request_id] = progress
            self._engine.submit(
                request_id,
                progress.request.token_ids,
                SamplingParams(max_tokens=progress.request.output_tokens, ignore_eos=True),
                adapter_id="" if adapter is None else str(adapter),
            )
        self._waiting = left

    def _step(self) -> None:
        outputs = self._engine.step()
        now_s = self._now_s()
        for output in outputs:
            progress = self._running[output.request_id]
            progress.token_times_s += [now_s] * len(output.token_ids)
            if output.finish_reason is not None:
                del self._running[output.request_id]
                if progress.request.adapter is not None:
                    self._residents.release(progress.request.adapter)
                self._rows.append(progress.row())
