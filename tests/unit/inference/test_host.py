"""The host tier: packed once, kept by worth, never taken from whoever uses it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from loraland_core.errors import ArtifactInvalid, Unavailable
from loraland_inference import messages
from loraland_inference.adapters.states import State
from tier_world import TierWorld, build_record, settle

Build = Callable[..., TierWorld]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return lambda **options: TierWorld(tmp_path, **options)


def files(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob(".work-*/*.safetensors"))


async def visit(f: TierWorld, digest: str) -> None:
    await f.host.take(build_record(digest))
    f.host.release(digest)


async def test_artifact_is_packed_once_for_all_who_ask(build: Build) -> None:
    """However many come at once, each has a reference of its own."""
    f = build()
    packed = await asyncio.gather(*(f.host.take(build_record("d0")) for _ in range(5)))
    for _ in packed:
        f.host.release("d0")

    assert (f.engine.packs, f.places.state("d0")) == (["d0"], State.HOST)
    assert {p.path.exists() for p in packed} == {True}


async def test_slot_that_gives_way_leaves_the_packed_form_behind(build: Build) -> None:
    """The next load of the same adapter neither fetches nor packs."""
    f = build(num_slots=1)
    for index in (0, 1, 0):
        (await f.acquire(index)).release()

    assert f.engine.loads == ["d0", "d1", "d0"]
    assert (f.engine.packs, f.disk.fetched) == (["d0", "d1"], ["d0", "d1"])
    assert f.observer.found_in == ["absent", "absent", "host"]


async def test_budget_is_kept_but_for_what_is_in_a_slot(build: Build, tmp_path: Path) -> None:
    """Two fit; the third takes the place of the one that no slot holds."""
    f = build(num_slots=1, num_packed=2)
    for index in (0, 1, 2):
        (await f.acquire(index)).release()
    states = {d: f.places.state(d) for d in ("d0", "d1", "d2")}

    assert states == {"d0": State.DISK, "d1": State.HOST, "d2": State.RESIDENT}
    assert (files(tmp_path), f.host.used_bytes) == (["d1", "d2"], 2000)
    assert f.observer.evicted_from.count("host") == 1


async def test_nothing_in_use_goes_however_small_the_budget(build: Build, tmp_path: Path) -> None:
    """Over the budget while two are held, within it when one is let go."""
    f = build(num_slots=2, num_packed=1)
    leases = [await f.acquire(index) for index in (0, 1)]
    during = files(tmp_path)
    for lease in leases:
        lease.release()
    f.coordinator.evict("ns/a0")

    assert (during, files(tmp_path)) == (["d0", "d1"], ["d1"])


async def test_used_one_stays_and_one_that_came_once_goes(build: Build, tmp_path: Path) -> None:
    """What a tier keeps is decided by use, not by the order of coming."""
    f = build(num_packed=2)
    for digest in ("d0", "d0", "d0", "d1", "d2"):
        await visit(f, digest)

    assert files(tmp_path) == ["d0", "d2"]


async def test_caller_that_gives_up_holds_nothing(build: Build) -> None:
    """The work goes on for the others, and its reference is not counted."""
    f = build()
    f.disk.gates["d0"] = asyncio.Event()
    gone, stays = (asyncio.create_task(f.host.take(build_record("d0"))) for _ in range(2))
    await settle()
    gone.cancel()
    await settle()
    f.disk.gates["d0"].set()
    await stays
    f.host.release("d0")

    f.host.drop("d0")
    assert f.places.state("d0") is State.DISK


async def test_full_folder_is_nothing_against_the_adapter(build: Build, tmp_path: Path) -> None:
    """What nobody uses goes, the caller may come back, and the adapter is not refused."""
    f = build()
    await visit(f, "d1")
    f.engine.unpackable["d0"] = ArtifactInvalid("no space", reason=messages.HOST_FULL)

    with pytest.raises(Unavailable, match="no room"):
        await f.acquire(0)
    f.engine.unpackable.clear()
    lease = await f.acquire(0)

    assert (lease.digest, files(tmp_path), f.registry.rejections()) == ("d0", ["d0"], {})


async def test_adapter_that_cannot_be_packed_is_refused_alone(build: Build) -> None:
    """The engine's reason reaches the caller and the heartbeat; it may be repaired later."""
    f = build()
    f.engine.unpackable["d0"] = ArtifactInvalid("rank 99", reason="RankOverLimit")
    with pytest.raises(ArtifactInvalid, match="RankOverLimit"):
        await f.acquire(0)
    state = f.places.state("d0")
    other = await f.acquire(1)
    f.engine.unpackable.clear()
    f.now_s = 1000.0
    repaired = await f.acquire(0)

    assert (state, other.digest, repaired.digest) == (State.FAILED, "d1", "d0")


async def test_packed_file_that_was_taken_away_is_packed_again(build: Build) -> None:
    """Whoever empties a tmpfs costs one retry."""
    f = build()
    f.engine.failing["d0"] = ArtifactInvalid("is gone", reason=messages.PACKED_FILE_LOST)
    with pytest.raises(Unavailable, match="try again"):
        await f.acquire(0)
    state = f.places.state("d0")
    f.engine.failing.clear()
    lease = await f.acquire(0)

    assert (state, lease.digest, f.engine.packs) == (State.DISK, "d0", ["d0", "d0"])


async def test_engine_that_is_lost_gives_its_slots_back_to_the_host(build: Build) -> None:
    """Nothing is packed again after a restart; nothing stays held."""
    f = build()
    for index in (0, 1):
        (await f.acquire(index)).release()
    f.coordinator.lose_slots()
    f.engine.held.clear()
    states = [f.places.state(d) for d in ("d0", "d1")]
    (await f.acquire(0)).release()

    assert states == [State.HOST, State.HOST]
    assert f.engine.packs == ["d0", "d1"]


async def test_slots_have_a_budget_of_bytes_too(build: Build) -> None:
    """Three slots, but memory for two."""
    f = build(num_slots=3, slot_bytes=2000)
    for index in (0, 1, 2):
        (await f.acquire(index)).release()

    assert f.engine.held == {"d1", "d2"}


async def test_close_leaves_no_file(build: Build, tmp_path: Path) -> None:
    """The folder belongs to the process."""
    f = build()
    await visit(f, "d0")

    await f.host.close()

    assert list(tmp_path.glob("*")) == []  # noqa: ASYNC240 (a test)
