"""What an uninstallation does first: nothing of ours may keep an object from being deleted."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loraland_core import names
from operator_objects import build_adapter_object
from operator_world import World, path_of, running_world, wait_for

ADAPTERS = names.ADAPTERS
EXIT_LOST = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(Path(tmp_path_factory.mktemp("world"))) as found:
        yield found


def release(world: World) -> "subprocess.CompletedProcess[str]":
    """Run the command with what the chart's hook gives it, and no more."""
    given = ("PATH", "HOME", "KUBECONFIG", "POD_NAMESPACE", "LORALAND_WATCH_NAMESPACES")
    return subprocess.run(
        [sys.executable, "-m", "loraland_operator", "release"],
        env={name: world.environment[name] for name in given},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def serve(world: World, *adapters: str) -> None:
    digest = world.upload_artifact("held").digest
    source = {"artifact": {"digest": digest, "name": "held"}}
    for name in adapters:
        world.create(build_adapter_object(name, source=source))
        wait_for(lambda n=name: world.record(f"default/{n}"), "its record")  # type: ignore[misc]


def finalizers(world: World) -> list[str]:
    return [
        finalizer
        for adapter in world.api.list(path_of(ADAPTERS))
        for finalizer in adapter["metadata"].get("finalizers", [])
    ]


def test_released_adapters_need_no_operator(world: World) -> None:
    """One being deleted goes at once, the others when somebody deletes them; records stay."""
    world.start_operator()
    serve(world, "going", "staying")
    world.stop_operator()
    world.delete(ADAPTERS, "going")
    found = release(world)

    assert (found.returncode, found.stdout) == (0, "2 Adapters let go\n"), found.stderr
    assert world.api.find(path_of(ADAPTERS, "going")) is None
    world.delete(ADAPTERS, "staying")
    assert world.api.find(path_of(ADAPTERS, "staying")) is None
    assert world.record("default/staying") is not None


@pytest.mark.slow
def test_operator_that_runs_ends_and_puts_nothing_back(world: World) -> None:
    """The command takes the Lease away, even from a leader at work."""
    lease = path_of("leases", "loraland-operator")
    # An earlier release keeps it for a minute.
    if world.api.find(lease) is not None:
        world.api.call("DELETE", lease)
    world.start_operator()
    serve(world, "held-one", "held-two")
    found = release(world)

    assert (found.returncode, found.stdout) == (0, "2 Adapters let go\n"), found.stderr
    assert world.wait_for_operator() == EXIT_LOST
    assert finalizers(world) == []


def test_unknown_command_is_refused() -> None:
    """A mistyped hook does not start an operator."""
    found = subprocess.run(
        [sys.executable, "-m", "loraland_operator", "relase"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (found.returncode, "expected nothing or release" in found.stderr) == (1, True)
