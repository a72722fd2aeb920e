"""The command beside a stack: two of them, taken ports, what is said when nothing runs."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from land import Land
from loraland_local import addresses


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Land]:
    """A second stack's directory; whatever runs there is gone afterwards."""
    found = Land(tmp_path / "other")
    yield found
    found.loraland("down")


def test_two_stacks_do_not_collide(land: Land, other: Land) -> None:
    """A second stack comes up beside the first, with its own addresses and objects."""
    started = other.loraland("up", timeout_s=900)
    assert started.returncode == 0, started.stderr
    other.kubectl("create", "configmap", "mine")
    seen = land.kubectl("get", "configmap", "mine", "--ignore-not-found", "-o", "name").stdout
    answer = other.loraland("generate", "hello", "--max-tokens", "2")
    stopped = other.loraland("down")

    assert (seen, answer.returncode, stopped.returncode) == ("", 0, 0), answer.stderr
    assert (other.num_processes(), land.loraland("status").returncode) == (0, 0)


def test_up_refuses_a_directory_whose_stack_runs(land: Land) -> None:
    """A second up says so, and leaves the running stack alone."""
    result = land.loraland("up")

    assert (result.returncode, "a stack runs here already" in result.stderr) == (1, True)
    assert land.loraland("status").returncode == 0


def test_up_says_which_port_is_taken(other: Land) -> None:
    """A port asked for by name and taken is named; nothing is left running."""
    block = addresses.claim_block(other.place.state)
    block.release()
    with socket.socket() as taken:
        taken.bind((block.host, 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        result = other.loraland("up", "--api-port", str(port))

    assert (result.returncode, f"--api-port: port {port}" in result.stderr) == (1, True)
    assert ("Traceback" in result.stderr, other.num_processes()) == (False, 0)


@pytest.mark.parametrize(
    "command", [("status",), ("generate", "hello"), ("kubectl", "get", "pods")]
)
def test_command_says_that_no_stack_runs(other: Land, command: tuple[str, ...]) -> None:
    """One sentence, and what to do."""
    result = other.loraland(*command)

    assert (result.returncode, "start one with `loraland up`" in result.stderr) == (1, True)


def test_up_interrupted_leaves_no_process(other: Land) -> None:
    """Ctrl-C while the stack starts takes everything down again."""
    process = other.start("up")
    other.wait_until(lambda: other.num_processes() >= 4, timeout_s=60)
    process.send_signal(signal.SIGINT)
    process.wait(60)

    assert (process.returncode, other.num_processes()) == (130, 0)


def test_second_up_at_once_ends_nothing_of_the_first(other: Land) -> None:
    """Of two that start in one directory one is refused, and the other goes on undisturbed."""
    both = [other.start("up"), other.start("up")]
    other.wait_until(lambda: any(p.poll() is not None for p in both), timeout_s=60)
    loser, winner = sorted(both, key=lambda process: process.poll() is None)
    other.wait_until(lambda: other.num_processes() >= 4, timeout_s=60)
    still_starts = winner.poll() is None
    winner.send_signal(signal.SIGINT)
    winner.wait(60)

    assert (loser.returncode, still_starts, winner.returncode) == (1, True, 130)
    assert other.num_processes() == 0


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the death signal is Linux's")
def test_killed_supervisor_leaves_no_process(other: Land) -> None:
    """SIGKILL of the supervisor gives nobody a chance to say goodbye, and still nothing stays."""
    started = other.loraland("up", timeout_s=900)
    assert started.returncode == 0, started.stderr
    record = other.place.read_record()
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    other.wait_until(lambda: other.num_processes() == 0, timeout_s=30)

    assert other.loraland("status").returncode == 1


def test_fallen_station_is_started_again(land: Land) -> None:
    """The supervisor brings back a station that died, and the stack goes on."""
    record = land.place.read_record()
    assert record is not None
    pid = next(s.pid for s in record.stations if s.name == "controllers")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        now = land.place.read_record()
        assert now is not None
        station = next(s for s in now.stations if s.name == "controllers")
        with contextlib.suppress(psutil.NoSuchProcess):
            return bool(station.state == "ready" and station.pid and station.pid != pid)
        return False

    land.wait_until(is_back, timeout_s=30)

    assert land.loraland("status").returncode == 0
