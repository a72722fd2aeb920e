"""The operator confined to some namespaces, with a Role in each and no rights beyond them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loraland_core import names
from operator_objects import build_adapter_object, build_job_object
from operator_world import World, path_of, running_world, wait_for

JOBS, ADAPTERS = names.FINE_TUNE_JOBS, names.ADAPTERS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = Path(tmp_path_factory.mktemp("world"))
    with running_world(folder, namespaces=("team-a", "team-b")) as found:
        found.start_operator()
        yield found


def status_of(world: World, plural: str, name: str, namespace: str) -> dict[str, object]:
    obj = world.api.call("GET", path_of(plural, name, namespace=namespace))
    return dict(obj.get("status", {}))


def test_each_of_its_namespaces_is_served(world: World) -> None:
    """Jobs are started and Adapters looked at in all namespaces that were named."""
    for namespace in ("team-a", "team-b"):
        world.create(build_job_object("tickets"), namespace=namespace)
        adapter = build_adapter_object("absent", source={"artifact": {"digest": "0" * 64}})
        world.create(adapter, namespace=namespace)
    for namespace in ("team-a", "team-b"):
        path = path_of("jobs", "tickets", namespace=namespace)
        wait_for(lambda p=path: world.api.find(p), f"the Job in {namespace}")  # type: ignore[misc]
        wait_for(
            lambda n=namespace: status_of(world, ADAPTERS, "absent", n).get("phase") == "Rejected",  # type: ignore[misc]
            f"the Adapter's status in {namespace}",
        )


def test_changes_come_by_watch_streams(world: World) -> None:
    """Streams work without a right to look at anything cluster-wide."""
    world.create(build_job_object("switched", suspend=True), namespace="team-b")
    path = path_of("jobs", "switched", namespace="team-b")
    wait_for(lambda: world.api.find(path), "the Job")
    change = {"spec": {"suspend": False}}
    world.api.patch(path_of(JOBS, "switched", namespace="team-b"), change)
    wait_for(lambda: world.api.call("GET", path)["spec"]["suspend"] is False, "it to go on")


def test_other_namespaces_are_left_alone(world: World) -> None:
    """What lies elsewhere is not even looked at, so that nothing is refused either."""
    world.create(build_job_object("foreign"))
    world.create(build_job_object("own"), namespace="team-a")
    wait_for(lambda: world.api.find(path_of("jobs", "own", namespace="team-a")), "its own Job")
    mine = [e for e in world.audit_log() if "loraland-operator" in e["userAgent"]]
    others = ("/namespaces/team-a/", "/namespaces/team-b/", "/leases")

    assert status_of(world, JOBS, "foreign", "default") == {}
    assert [e["requestURI"] for e in mine if not any(o in e["requestURI"] for o in others)] == []
    assert [e["requestURI"] for e in world.audit_log() if e["responseStatus"]["code"] == 403] == []


def test_operator_ends_cleanly(world: World) -> None:
    """SIGTERM ends a confined operator as well, without a traceback."""
    code = world.stop_operator()

    assert (code, "Traceback" in world.log()) == (0, False), world.log()[-3000:]
