"""The stack as the command sees it."""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loraland_core.errors import InvalidInput, NotFound, Unavailable
from loraland_local import ownership, processes, stack
from loraland_local.layout import Layout, StackRecord
from loraland_local.options import StackOptions


def ending(status: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({status})"])


@pytest.mark.parametrize(
    ("status", "failure", "expected"),
    [
        pytest.param(4, "", "is full: free some space", id="disk-full"),
        pytest.param(1, "api did not serve", "api did not serve", id="told"),
        pytest.param(1, "", "the supervisor ended with status 1; see ", id="untold"),
    ],
)
def test_wait_ready_says_why_the_supervisor_ended(
    tmp_path: Path, status: int, failure: str, expected: str
) -> None:
    """Its own sentence if it could write one, else what its status means."""
    place = Layout(tmp_path)
    place.write_record(
        StackRecord(state="failed", pid=1, base_model="m", grpc_port=1, failure=failure)
    )
    with pytest.raises(Unavailable) as raised:
        stack.wait_ready(place, ending(status), on_change=lambda _: None)

    assert expected in str(raised.value)


def test_start_refuses_a_directory_whose_lock_is_held(tmp_path: Path) -> None:
    """A running stack is not started again."""
    place = Layout(tmp_path)
    with place.lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InvalidInput) as refused:
            stack.start(place, StackOptions(state=tmp_path))

    assert refused.value.reason == "AlreadyRunning"


def test_running_record_ignores_what_a_dead_supervisor_left(tmp_path: Path) -> None:
    """A record without a lock is history."""
    place = Layout(tmp_path)
    place.write_record(StackRecord(state="ready", pid=1, base_model="m", grpc_port=1))
    with pytest.raises(NotFound, match="start one with `loraland up`"):
        stack.running_record(place)


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that carries the directory's mark, started by somebody else's stack."""
    process = subprocess.Popen(["sleep", "60"], env=processes.environment(tmp_path))
    yield process
    process.kill()
    process.wait()


def test_start_in_vain_ends_nothing(tmp_path: Path, neighbour: "subprocess.Popen[bytes]") -> None:
    """A refused start sweeps nothing of the stack that runs, nor does its cleaning up."""
    place = Layout(tmp_path)
    with ownership.hold(place):
        with pytest.raises(InvalidInput):
            stack.start(place, StackOptions(state=tmp_path))
        num_killed = stack.stop(place, is_own=True)

        assert (num_killed, neighbour.poll()) == (0, None)


def test_stop_sweeps_what_a_dead_supervisor_left(
    tmp_path: Path, neighbour: "subprocess.Popen[bytes]"
) -> None:
    """With nobody at the lock, what carries the mark belongs to nobody."""
    place = Layout(tmp_path)
    with ownership.hold(place):
        pass
    num_killed = stack.stop(place)

    assert (num_killed, neighbour.wait(5)) == (1, -signal.SIGKILL)


def test_start_leaves_a_directory_of_others_as_it_was(tmp_path: Path) -> None:
    """Not even a lock is put there."""
    (tmp_path / "token").write_text("mine")
    with pytest.raises(InvalidInput, match="not empty and not a stack's"):
        stack.start(Layout(tmp_path), StackOptions(state=tmp_path))

    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("token", "mine")]
