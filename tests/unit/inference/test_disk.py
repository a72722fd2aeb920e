"""The disk tier: whole folders or none, checked before use, fetched once."""

import asyncio
import errno
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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
from loraland_inference.adapters.states import Places

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


def publish(store: MemoryStore) -> AdapterRecord:
    files = [
        File(path=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in FILES.items()
    ]
    manifest = Manifest(
        base_model="tiny", resolved_revision="r", training_precision="nf4", rank=4, alpha=8,
        target_modules=[], dtype="float32", files=files, created_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    store.objects = {f"a/{name}": data for name, data in FILES.items()}
    store.objects["a/manifest.json"] = manifest.to_json()
    return AdapterRecord(
        base_model="tiny", digest=manifest.digest, uri="s3://b/a/", size_bytes=1, rank=4,
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
