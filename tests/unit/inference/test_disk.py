"""The disk tier: whole folders or none, checked before use, fetched once."""

import asyncio
import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from loraland_core import artifacts
from loraland_core.artifacts import File, Manifest
from loraland_core.errors import ArtifactInvalid, InvalidInput, LoraLandError, NotFound, Unavailable
from loraland_core.keys import AdapterRecord
from loraland_core.prompts import PromptTemplate
from loraland_inference.adapters.disk import DiskTier
from loraland_inference.adapters.fetching import Fetcher
from loraland_inference.adapters.folders import LocalAdapter
from loraland_inference.adapters.observer import Observer
from loraland_inference.adapters.states import Event, Places, State

HEADER = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"weights!"
FILES = {
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": WEIGHTS,
    "prompt.json": PromptTemplate(kind="fields", template="{x}").to_json(),
}


class MemoryStore:
    """The part of ``Store`` that the disk tier uses, over a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fault: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.num_downloads = 0

    def key(self, uri: str) -> str:
        return uri.removeprefix("s3://b/")

    def read(self, key: str, *, max_bytes: int) -> bytes:
        self.gate.wait(10)
        if self.fault is not None:
            raise self.fault
        if key not in self.objects:
            raise NotFound(key)
        return self.objects[key][:max_bytes]

    def download(self, key: str, path: Path, *, max_bytes: int) -> str:
        self.num_downloads += 1
        data = self.read(key, max_bytes=2**30)
        if len(data) > max_bytes:
            raise InvalidInput("larger", field=key, reason="DigestMismatch")
        path.write_bytes(data)
        return hashlib.sha256(data).hexdigest()


def publish(store: MemoryStore, name: str = "a") -> AdapterRecord:
    contents = FILES | {artifacts.CONFIG_FILE: f'{{"name": "{name}"}}'.encode()}
    files = [
        File(path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for path, data in contents.items()
    ]
    manifest = Manifest(
        base_model="tiny", resolved_revision="r", training_precision="nf4", rank=4, alpha=8,
        target_modules=[], dtype="float32", files=files, created_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    store.objects = {f"{name}/{path}": data for path, data in contents.items()}
    store.objects[f"{name}/manifest.json"] = manifest.to_json()
    return AdapterRecord(
        base_model="tiny", digest=manifest.digest, uri=f"s3://b/{name}/", size_bytes=1, rank=4,
        tenants=["t"],
    )  # fmt: skip


class OwnTurn:
    """Everybody downloads what it wants."""

    @asynccontextmanager
    async def turn(self, _: str, __: Callable[[], bool]) -> AsyncIterator[bool]:
        yield True


class Fixture:
    def __init__(self, root: Path) -> None:
        self.root, self.store, self.now_s = root, MemoryStore(), 0.0
        self.record = publish(self.store)
        self.tier = self.restarted()

    def restarted(self, *, budget_bytes: int = 2**30, max_bytes: int = 2**20) -> DiskTier:
        self.places = Places(lambda: self.now_s, jitter=lambda _, high: high)
        tier = DiskTier(
            Fetcher(self.store, max_bytes=max_bytes),  # type: ignore[arg-type]
            self.root,
            budget_bytes=budget_bytes,
            concurrent_fetches=4,
            turns=lambda _: OwnTurn(),
            places=self.places,
            observer=Observer(),
            clock=lambda: self.now_s,
        )
        tier.prepare()
        return tier

    def found(self) -> list[str]:
        """Return all that lies there and in the folders of processes, but for what names these."""
        own = list(self.root.glob(".work-*/*"))
        folders = [p for p in self.root.iterdir() if not p.name.startswith((".work-", ".node-id"))]
        return sorted(path.name for path in folders + own)


async def fetch(tier: DiskTier, record: AdapterRecord) -> LocalAdapter:
    async with tier.held(record) as local:
        return local


@pytest.fixture
def f(tmp_path: Path) -> Fixture:
    return Fixture(tmp_path / "adapters")


async def test_ensure_fetches_an_artifact_once_for_all_who_ask(f: Fixture) -> None:
    """Single flight: three files are downloaded, however many wait."""
    locals_ = await asyncio.gather(*(fetch(f.tier, f.record) for _ in range(5)))

    assert {local.folder for local in locals_} == {f.root / f.record.digest}
    assert (f.store.num_downloads, f.found()) == (3, [f.record.digest])
    assert locals_[0].prompt.template == "{x}"


async def test_restart_finds_what_is_on_the_disk(f: Fixture) -> None:
    """With the store away, a new process serves what the one before had fetched."""
    await f.tier.ensure(f.record)
    f.store.fault = Unavailable("away")

    local = await fetch(f.restarted(), f.record)

    assert local.folder.name == f.record.digest


async def test_damaged_folder_is_fetched_again(f: Fixture) -> None:
    """What a restart finds is hashed before it is used."""
    local = await fetch(f.tier, f.record)
    (local.folder / artifacts.WEIGHTS_FILE).write_bytes(WEIGHTS[:-1] + b"?")

    again = await fetch(f.restarted(), f.record)

    assert (again.folder / artifacts.WEIGHTS_FILE).read_bytes() == WEIGHTS


async def test_prepare_removes_what_a_killed_process_left(f: Fixture) -> None:
    """Half-written folders are recognised by their names."""
    (f.root / ".partial-x" / f.record.digest).mkdir(parents=True)

    f.restarted()

    assert f.found() == []


def set_object(name: str, data: bytes | None) -> Callable[[MemoryStore], None]:
    def change(store: MemoryStore) -> None:
        store.objects.pop(f"a/{name}")
        if data is not None:
            store.objects[f"a/{name}"] = data

    return change


def set_fault(fault: Exception) -> Callable[[MemoryStore], None]:
    return lambda store: setattr(store, "fault", fault)


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        (set_object(artifacts.WEIGHTS_FILE, WEIGHTS[:-1] + b"?"), ArtifactInvalid, "DigestMismatch"),
        (set_object(artifacts.WEIGHTS_FILE, WEIGHTS + b" and more"), ArtifactInvalid, "DigestMismatch"),
        (set_object(artifacts.WEIGHTS_FILE, b"short"), ArtifactInvalid, "DigestMismatch"),
        (set_object(artifacts.CONFIG_FILE, None), ArtifactInvalid, "ArtifactInvalid"),
        (set_object("manifest.json", None), ArtifactInvalid, "ManifestMissing"),
        (set_object("manifest.json", b"{}"), ArtifactInvalid, "ArtifactInvalid"),
        (set_fault(Unavailable("away")), Unavailable, None),
        (set_fault(OSError(errno.ENOSPC, "No space left on device")), Unavailable, None),
        (set_fault(InvalidInput("denied", reason="StoreAccessDenied")), Unavailable, None),
    ],
    ids=[
        "changed", "longer", "shorter", "missing", "no-manifest", "bad-manifest", "away", "full",
        "denied",
    ],
)  # fmt: skip
async def test_fault_leaves_nothing_behind(
    f: Fixture, change: Callable[[MemoryStore], None], kind: type[LoraLandError], reason: str | None
) -> None:
    """The adapter's fault has a reason; the platform's is Unavailable; no file stays."""
    change(f.store)

    with pytest.raises(kind) as caught:
        await f.tier.ensure(f.record)

    assert (type(caught.value), getattr(caught.value, "reason", None)) == (kind, reason)
    assert f.found() == []


async def test_store_that_hangs_does_not_hold_up_what_is_on_the_disk(f: Fixture) -> None:
    """Downloads have threads of their own."""
    await f.tier.ensure(f.record)
    tier = f.restarted()
    f.store.gate.clear()
    others = [f.record.model_copy(update={"digest": f"{i:064d}"}) for i in range(8)]
    waiting: list[Any] = [asyncio.create_task(tier.ensure(other)) for other in others]
    await asyncio.sleep(0.05)

    local = await asyncio.wait_for(fetch(tier, f.record), 60)

    f.store.gate.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert local.digest == f.record.digest


def publish_more(f: Fixture, name: str) -> AdapterRecord:
    """Publish another artifact, with weights of its own."""
    objects = f.store.objects
    record = publish(f.store, name)
    f.store.objects = objects | f.store.objects
    return record


async def test_budget_is_kept_but_for_what_is_held(f: Fixture) -> None:
    """What nobody holds makes room for what comes; what is held stays, even over the budget."""
    other, third = publish_more(f, "b"), publish_more(f, "c")
    size_bytes = (await fetch(f.tier, f.record)).size_bytes
    tier = f.restarted(budget_bytes=size_bytes)
    async with tier.held(other), tier.held(third):
        during = f.found()
    after = f.found()

    assert during == sorted([other.digest, third.digest])
    assert len(after) == 1
    assert f.places.state(f.record.digest) is State.ABSENT


async def test_neighbour_does_not_take_what_this_one_holds(f: Fixture) -> None:
    """Two replicas, one disk, room for one artifact: a folder in use stays, the other one goes."""
    other = publish_more(f, "b")
    neighbour = f.restarted(budget_bytes=1)
    async with f.tier.held(f.record):
        async with neighbour.held(other):
            during = f.found()
        after = f.found()
    async with neighbour.held(other):
        at_last = f.found()

    assert during == sorted([f.record.digest, other.digest])
    assert after == [f.record.digest]
    assert at_last == [other.digest]


async def test_artifact_that_a_neighbour_removed_is_fetched_again(f: Fixture) -> None:
    """A folder that was verified and is gone is noticed before it is handed out."""
    await fetch(f.tier, f.record)
    shutil.rmtree(f.root / f.record.digest)

    local = await fetch(f.tier, f.record)

    assert (local.folder / artifacts.WEIGHTS_FILE).read_bytes() == WEIGHTS
    assert f.store.num_downloads == 6


async def test_artifact_that_a_neighbour_brings_is_not_fetched(f: Fixture) -> None:
    """Whoever waited for its turn looks first, and hashes what it finds."""
    neighbour = f.restarted()

    class AfterNeighbour:
        @asynccontextmanager
        async def turn(self, _: str, is_done: Callable[[], bool]) -> AsyncIterator[bool]:
            await neighbour.ensure(f.record)
            yield not is_done()

    f.tier._turns = AfterNeighbour()
    local = await fetch(f.tier, f.record)

    assert (local.digest, f.store.num_downloads) == (f.record.digest, 3)


async def test_restart_knows_what_was_used_last(f: Fixture) -> None:
    """The time of use is on the disk: the older one makes room."""
    other, third = publish_more(f, "b"), publish_more(f, "c")
    size_bytes = (await fetch(f.tier, f.record)).size_bytes
    await fetch(f.tier, other)
    for record, age_s in ((f.record, 10), (other, 4000)):
        used_s = time.time() - age_s
        os.utime(f.root / record.digest, (used_s, used_s))

    await fetch(f.restarted(budget_bytes=2 * size_bytes), third)

    assert f.found() == sorted([f.record.digest, third.digest])


async def test_artifact_over_the_limit_is_refused_by_name(f: Fixture) -> None:
    """Before a byte of its files is read."""
    with pytest.raises(ArtifactInvalid) as caught:
        await fetch(f.restarted(max_bytes=10), f.record)

    assert (caught.value.reason, f.store.num_downloads) == ("ArtifactTooLarge", 0)


@pytest.mark.parametrize("fault", [None, Unavailable("away")], ids=["comes", "fails"])
async def test_what_is_nearer_keeps_its_state_when_the_disk_gets_it_again(
    f: Fixture, fault: Exception | None
) -> None:
    """An adapter in memory whose folder is gone may be fetched beside its use."""
    await fetch(f.tier, f.record)
    shutil.rmtree(f.root / f.record.digest)
    f.places.move(f.record.digest, Event.PACKED)
    f.store.fault = fault
    with suppress(Unavailable):
        await fetch(f.tier, f.record)

    assert f.places.state(f.record.digest) is State.HOST


async def test_close_in_the_middle_of_a_fetch_leaves_no_folder(f: Fixture) -> None:
    """Who waits is told; what was half written goes with the process."""
    f.store.gate.clear()
    waiting = asyncio.create_task(fetch(f.tier, f.record))
    await asyncio.sleep(0.05)
    await f.tier.close()
    f.store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    f.restarted()
    assert [name for name in f.found() if len(name) != 64] == []
