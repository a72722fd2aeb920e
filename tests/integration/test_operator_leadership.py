"""Two operators, of which one acts."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loraland_core import names
from operator_objects import build_job_object
from operator_world import World, path_of, running_world, wait_for
from servers import free_port

pytestmark = pytest.mark.slow

LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/loraland-operator"
EXIT_LOST = 3
Process = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(Path(tmp_path_factory.mktemp("world"))) as found:
        yield found


@pytest.fixture(autouse=True)
def _free_lease(world: World) -> Iterator[None]:
    yield
    world.api.call("DELETE", LEASE)


@contextlib.contextmanager
def operator(world: World, name: str) -> Iterator[Process]:
    ports = {f"LORALAND_{what}_PORT": str(free_port()) for what in ("LIVENESS", "METRICS")}
    with (world.folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "loraland_operator"],
            env={**world.environment, **ports, "POD_NAME": name},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def holder(world: World) -> str:
    lease = world.api.find(LEASE)
    return str(lease["spec"]["holderIdentity"]) if lease else ""


def requests_of(world: World, name: str) -> list[dict[str, Any]]:
    return [event for event in world.audit_log() if f"({name})" in event["userAgent"]]


def reads_of(world: World, name: str) -> list[str]:
    return [e["requestURI"] for e in requests_of(world, name) if e["verb"] == "get"]


def writes_of(world: World, name: str) -> list[str]:
    return [e["requestURI"] for e in requests_of(world, name) if e["verb"] != "get"]


def test_stopped_leader_writes_nothing_after_another_took_over(world: World) -> None:
    """A leader that was stopped for longer than its Lease ends when continued, silently."""
    with operator(world, "first") as first, operator(world, "second") as second:
        leader, follower = wait_for(
            lambda: {"first": (first, "second"), "second": (second, "first")}.get(holder(world)),
            "a leader",
        )
        name = holder(world)
        world.create(build_job_object("before"))
        world.wait_for_job("before")
        leader.send_signal(signal.SIGSTOP)
        world.create(build_job_object("meanwhile"))
        wait_for(lambda: holder(world) == follower, "the other to take over")
        world.wait_for_job("meanwhile")
        written = writes_of(world, name)
        os.kill(leader.pid, signal.SIGCONT)

        assert leader.wait(timeout=30) == EXIT_LOST
        assert (writes_of(world, name), holder(world)) == (written, follower)
        assert any(names.FINE_TUNE_JOBS in uri for uri in writes_of(world, follower))


def test_leader_that_stops_hands_over_at_once(world: World) -> None:
    """After SIGTERM the Lease is free, not merely left to expire."""
    with operator(world, "third") as third:
        wait_for(lambda: holder(world) == "third", "the Lease")
        third.terminate()

        assert third.wait(timeout=30) == 0
        assert holder(world) == ""


def test_operator_that_waits_stops_at_once(world: World) -> None:
    """One that never led ends cleanly and leaves the Lease with its holder."""
    with operator(world, "fourth") as fourth, operator(world, "fifth") as fifth:
        leader = wait_for(lambda: holder(world), "a leader")
        waiting = fifth if leader == "fourth" else fourth
        name = "fifth" if waiting is fifth else "fourth"
        wait_for(lambda: reads_of(world, name), "it to look at the Lease")
        waiting.terminate()

        assert waiting.wait(timeout=30) == 0
        assert holder(world) == leader


def test_leader_without_the_right_to_renew_ends(world: World) -> None:
    """One that cannot renew any more is not left acting."""
    with operator(world, "sixth") as sixth:
        wait_for(lambda: holder(world) == "sixth", "the Lease")
        taken = world.api.call("GET", LEASE)
        taken["spec"]["holderIdentity"] = "somebody-else"
        world.api.call("PUT", LEASE, taken)

        assert sixth.wait(timeout=60) == EXIT_LOST
    assert world.api.find(path_of(names.FINE_TUNE_JOBS, "before")) is not None
