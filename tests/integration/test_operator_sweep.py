"""The sweep against a real S3: what goes, what stays, and what it does when somebody publishes just then."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import operator_objects
import pytest
from loraland_core import artifacts
from loraland_core.errors import LoraLandError, Unavailable
from loraland_core.store import Store
from loraland_operator import cluster as kubernetes
from loraland_operator import housekeeping
from loraland_operator.housekeeping import Housekeeping

OLD, NEW, LOST = "a" * 64, "b" * 64, "c" * 64


class Listing:
    """An API server that lists what it is given; ``on_look`` happens before the given look."""

    def __init__(self) -> None:
        self.adapters: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.num_looks = 0
        self.on_look: dict[int, Callable[[], None]] = {}

    async def list(self, resource: kubernetes.Resource, _: str) -> list[dict[str, Any]]:
        if resource is not kubernetes.ADAPTERS:
            return self.jobs
        self.num_looks += 1
        self.on_look.get(self.num_looks, lambda: None)()
        return self.adapters


class World:
    """A store with one version that is served, one beyond the history, and one half uploaded."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.cluster = Listing()
        self.now = datetime.now(UTC) + timedelta(days=2)
        self.put(NEW, artifacts.WEIGHTS_FILE, artifacts.MANIFEST_FILE)
        self.put(OLD, artifacts.WEIGHTS_FILE, artifacts.MANIFEST_FILE)
        self.put(LOST, artifacts.WEIGHTS_FILE)
        store.write("jobs/gone/checkpoints/step-00000005/state", b"x")
        store.write("jobs/gone/result.json", b"{}")
        self.cluster.adapters = [adapter(NEW)]
        self.housekeeping = Housekeeping(
            cluster=self.cluster,  # type: ignore[arg-type]
            store=store,
            namespaces=(),
            clock=lambda: self.now,
        )

    def put(self, digest: str, *files: str) -> None:
        for file in files:
            self.store.write(artifacts.adapter_prefix("default", "a", digest) + file, b"x")

    def left(self) -> set[str]:
        """Return the folders that are there."""
        keys = [o.key for o in self.store.find_objects("")]
        return {"/".join(k.split("/")[:4] if k[0] == "a" else k.split("/")[:3]) for k in keys}


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


def adapter(digest: str) -> dict[str, Any]:
    metadata = {"name": "a", "namespace": "default", "uid": "u", "generation": 1}
    source = {"artifact": {"digest": digest}}
    return {
        "apiVersion": "loraland.dev/v1alpha1",
        "kind": "Adapter",
        "metadata": metadata,
        "spec": {"baseModel": "b", "source": source, "revisionHistoryLimit": 0},
    }


def folder(digest: str) -> str:
    return artifacts.adapter_prefix("default", "a", digest).rstrip("/")


KEPT = {folder(NEW), "jobs/gone/result.json"}
SWEPT = {folder(OLD), folder(LOST), "jobs/gone/checkpoints"}


async def test_dry_run_shows_what_the_sweep_then_removes(world: World) -> None:
    """The same list twice; after the second time it is gone, and a third finds nothing."""
    dry = await world.housekeeping.sweep(is_dry=True)
    before = world.left()
    report = await world.housekeeping.sweep(is_dry=False)
    after = world.left()
    again = await world.housekeeping.sweep(is_dry=False)

    assert (before, after) == (KEPT | SWEPT, KEPT)
    assert dry.removals == report.removals
    assert (report.num_removed, again.removals) == (3, ())
    assert housekeeping.describe(again) == "nothing to remove"
    assert "abandoned upload" in housekeeping.describe(dry)


async def test_upload_that_goes_on_meanwhile_stays(world: World) -> None:
    """The manifest comes between plan and removal: the artifact is whole and stays."""
    world.cluster.on_look[3] = lambda: world.put(LOST, artifacts.MANIFEST_FILE)
    for look in (2, 4):
        world.cluster.on_look[look] = world.cluster.on_look[3]
    await world.housekeeping.sweep(is_dry=False)

    assert folder(LOST) in world.left()


async def test_digest_that_is_published_meanwhile_stays(world: World) -> None:
    """A rollback to a version beyond the history comes between plan and removal."""

    def roll_back() -> None:
        world.cluster.adapters = [adapter(OLD), adapter(NEW)]

    world.cluster.on_look[2] = roll_back
    await world.housekeeping.sweep(is_dry=False)

    assert {folder(OLD), folder(NEW)} <= world.left()


async def test_job_that_is_started_meanwhile_keeps_its_adapter(world: World) -> None:
    """Another job may upload the very digest again, file by file."""

    def start() -> None:
        world.cluster.jobs = [operator_objects.build_job_object("a", uid="live")]

    world.cluster.on_look[2] = start
    await world.housekeeping.sweep(is_dry=False)

    assert {folder(OLD), folder(LOST)} <= world.left()


async def test_old_upload_in_parts_is_given_up(world: World) -> None:
    """Parts that nobody completes cost money for ever."""
    config = world.store.config
    world.store._client.create_multipart_upload(
        Bucket=config.bucket, Key=f"{config.prefix}/{folder(LOST)}/weights"
    )
    dry = await world.housekeeping.sweep(is_dry=True)
    before = list(world.store.find_uploads(""))
    await world.housekeeping.sweep(is_dry=False)

    assert [u.key for u in dry.uploads] == [u.key for u in before] == [f"{folder(LOST)}/weights"]
    assert list(world.store.find_uploads("")) == []


async def test_nothing_is_swept_when_the_cluster_cannot_be_read(world: World) -> None:
    """An API server that is away, or an Adapter of another release, may name anything."""
    before = world.left()
    broken = adapter(NEW)
    broken["spec"]["revisionHistoryLimit"] = "many"
    world.cluster.adapters = [broken]
    with pytest.raises(LoraLandError, match="nothing is swept"):
        await world.housekeeping.sweep(is_dry=False)

    def refuse() -> None:
        raise Unavailable("the API server does not answer")

    world.cluster.on_look[2] = refuse
    with pytest.raises(Unavailable):
        await world.housekeeping.sweep(is_dry=False)

    assert world.left() == before
