"""From one version of an Adapter to the next, back, and on: jobs, hands and an import."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loraland_core import artifacts, names
from operator_objects import build_job_object
from operator_world import World, path_of, running_world, wait_for

JOBS, ADAPTERS = names.FINE_TUNE_JOBS, names.ADAPTERS
# One story: each test goes on where the one before has ended.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(Path(tmp_path_factory.mktemp("world"))) as found:
        found.start_operator()
        yield found


def train(world: World, job_name: str, *, revision: str) -> str:
    """Publish a version of the Adapter ``desk``; return its digest."""
    output = {"adapter": {"name": "desk", "deletionPolicy": "Delete"}}
    world.create(build_job_object(job_name, output=output))
    job = world.wait_for_job(job_name)
    world.start_pod(job)
    result = world.write_result(job, "desk", resolvedRevision=revision)
    world.complete(job)
    world.wait_for_condition(JOBS, job_name, "AdapterPublished", "True/Published")
    return result.digest


def served(world: World, digest: str) -> dict[str, Any]:
    """Wait until a replica serves the digest; return the status."""

    def look() -> dict[str, Any] | None:
        world.beat()
        status: dict[str, Any] = world.api.call("GET", path_of(ADAPTERS, "desk")).get("status", {})
        newest = (status.get("history") or [{}])[0]
        is_it = newest.get("digest") == digest and newest.get("readyAt")
        return status if is_it and status["phase"] == "Ready" else None

    return wait_for(look, f"digest {digest[:12]} to be served")


def wait_for_next_second(world: World, job_name: str) -> None:
    """Kubernetes dates objects in whole seconds, and the newer job wins."""
    created = world.api.call("GET", path_of(JOBS, job_name))["metadata"]["creationTimestamp"]
    probe = {"metadata": {"generateName": "clock-"}}
    wait_for(
        lambda: (
            world.api.call("POST", path_of("configmaps"), probe)["metadata"]["creationTimestamp"]
            > created
        ),
        "the next second",
    )


def set_digest(world: World, digest: str) -> None:
    """Go back as docs/operations.md says: by hand, on the Adapter itself."""
    change = {"spec": {"source": {"artifact": {"digest": digest}}}}
    world.api.patch(path_of(ADAPTERS, "desk"), change)


def test_versions_go_forth_and_back(world: World) -> None:
    """A worse version is left for the one before it; the next job's takes over all the same."""
    first = train(world, "first", revision="rev-1")
    served(world, first)
    wait_for_next_second(world, "first")
    second = train(world, "second", revision="rev-2")
    served(world, second)
    set_digest(world, first)
    back = served(world, first)
    record = world.record("default/desk")

    assert [(r["digest"], r["cause"]) for r in back["history"]] == [
        (first, "Rollback to FineTuneJob/first"),
        (second, "FineTuneJob/second"),
    ]
    assert record is not None
    assert record.digest == first
    wait_for_next_second(world, "second")
    third = train(world, "third", revision="rev-3")
    on = served(world, third)

    assert [r["cause"] for r in on["history"]] == [
        "FineTuneJob/third",
        "Rollback to FineTuneJob/first",
        "FineTuneJob/second",
    ]
    told = world.events_of("Adapter", "desk")
    assert [r for r in told if r.startswith("Rolled")] == ["RolledOut", "RolledBack", "RolledOut"]


def test_wrong_way_back_leaves_what_is_served(world: World) -> None:
    """A digest that was never there is refused; history and record stay."""
    before = world.api.call("GET", path_of(ADAPTERS, "desk"))["status"]["history"]
    record = world.record("default/desk")
    set_digest(world, "0" * 64)
    world.wait_for_condition(ADAPTERS, "desk", "ArtifactVerified", "False/ManifestMissing")
    refused = world.api.call("GET", path_of(ADAPTERS, "desk"))["status"]

    assert (refused["history"], world.record("default/desk")) == (before, record)
    set_digest(world, before[0]["digest"])
    world.wait_for_condition(ADAPTERS, "desk", "ArtifactVerified", "True/ArtifactValid")


def test_all_versions_go_with_the_adapter(world: World) -> None:
    """Under deletionPolicy Delete no version that was served stays in the bucket."""
    history = world.api.call("GET", path_of(ADAPTERS, "desk"))["status"]["history"]
    prefixes = [artifacts.adapter_prefix("default", "desk", r["digest"]) for r in history]
    assert all(world.store.exists(p + artifacts.MANIFEST_FILE) for p in prefixes)
    world.delete(ADAPTERS, "desk")
    wait_for(lambda: world.api.find(path_of(ADAPTERS, "desk")) is None, "the Adapter's end")

    assert [list(world.store.find_objects(prefix)) for prefix in prefixes] == [[], [], []]
