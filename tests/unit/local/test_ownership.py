"""Whose a state directory is."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from loraland_core.errors import InvalidInput
from loraland_local import ownership
from loraland_local.layout import Layout, StackRecord


def made(state: Path) -> Layout:
    """Make a directory a stack's."""
    place = Layout(state)
    ownership.mark(place)
    place.write_record(StackRecord(state="ready", pid=1, base_model="m", grpc_port=1))
    return place


def test_lock_is_held_by_one(tmp_path: Path) -> None:
    """A second one is told that a stack runs here; afterwards the lock is free again."""
    place = Layout(tmp_path)
    with ownership.hold(place):
        during = ownership.is_held(place)
        with pytest.raises(InvalidInput) as refused, ownership.hold(place):
            pass

    assert refused.value.reason == ownership.ALREADY_RUNNING
    assert (during, ownership.is_held(place)) == (True, False)


def test_lock_is_taken_while_others_look(tmp_path: Path) -> None:
    """Somebody who asks all the time whether a stack runs does not keep it from starting."""
    place = Layout(tmp_path)
    place.lock.touch()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.001):
            ownership.is_held(place)

    watchers = [threading.Thread(target=look) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    num_taken = 0
    for _ in range(20):
        with ownership.hold(place):
            num_taken += 1
    is_over.set()
    for watcher in watchers:
        watcher.join()

    assert num_taken == 20


def test_lock_stays_held_by_the_process_that_inherits_it(tmp_path: Path) -> None:
    """The command lets go of the lock, its supervisor does not."""
    place = Layout(tmp_path)
    with ownership.hold(place) as descriptor:
        heir = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
        )
    while_it_lives = ownership.is_held(place)
    heir.communicate(b"\n", timeout=10)

    assert (while_it_lives, ownership.is_held(place)) == (True, False)


def test_lock_that_was_removed_is_not_taken_for_the_directory_s(tmp_path: Path) -> None:
    """Whoever waited for the lock of a removed directory takes that of the new one."""
    place = Layout(tmp_path)

    def replace() -> None:
        time.sleep(0.1)
        place.lock.unlink()

    with ownership.hold(place):
        remover = threading.Thread(target=replace)
        remover.start()
        with ownership.hold(place) as second:
            is_the_directory_s = os.path.samestat(os.fstat(second), place.lock.stat())
    remover.join()

    assert is_the_directory_s


def foreign_lock(state: Path) -> None:
    (state / "lock").write_text("somebody's")


def foreign_file(state: Path) -> None:
    (state / "lock").touch()
    (state / "thesis.txt").touch()


def foreign_record(state: Path) -> None:
    (state / "stack.json").write_text('{"layers": []}')


def foreign_marker(state: Path) -> None:
    (state / "loraland-stack").write_text("notes on LoRA Land")


@pytest.mark.parametrize("fill", [foreign_lock, foreign_file, foreign_record])
def test_directory_of_others_is_not_moved_into(
    tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    """A stack writes only where it may remove."""
    fill(tmp_path)

    with pytest.raises(InvalidInput, match="not empty and not a stack's"):
        ownership.require(Layout(tmp_path))


@pytest.mark.parametrize("fill", [foreign_lock, foreign_file, foreign_record, foreign_marker])
def test_directory_of_others_is_not_removed(tmp_path: Path, fill: Callable[[Path], None]) -> None:
    """Names that a stack uses as well are no proof."""
    fill(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidInput, match="remove it yourself"):
        ownership.remove(Layout(tmp_path))

    assert sorted(tmp_path.iterdir()) == before


def test_directory_that_is_empty_or_a_stack_s_is_moved_into(tmp_path: Path) -> None:
    """Also one in which only the demo's directory lies, or a lock that an accident left."""
    made(tmp_path / "parent" / "demo")
    (tmp_path / "empty").mkdir()
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "lock").touch()
    for name in ("absent", "empty", "left", "parent", "parent/demo"):
        ownership.require(Layout(tmp_path / name))


def test_remove_takes_the_stack_s_directory_and_follows_no_link(tmp_path: Path) -> None:
    """Everything in it goes; what a link in it points to does not."""
    place = made(tmp_path / "state")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    place.logs.mkdir()
    (place.state / "link").symlink_to(tmp_path / "mine")
    ownership.remove(place)

    assert (place.state.exists(), (tmp_path / "mine" / "file").exists()) == (False, True)


def test_remove_leaves_another_stack_s_directory(tmp_path: Path) -> None:
    """The demo that was kept goes on below the stack that goes."""
    place = made(tmp_path / "state")
    demo = made(place.state / "demo")
    ownership.remove(place)

    assert list(place.state.iterdir()) == [demo.state]
    assert ownership.is_stack(demo)


def test_remove_refuses_while_the_stack_runs(tmp_path: Path) -> None:
    """Nobody pulls the directory from under a supervisor."""
    place = made(tmp_path)
    with ownership.hold(place), pytest.raises(InvalidInput, match="a stack runs here already"):
        ownership.remove(place)

    assert place.record.exists()
