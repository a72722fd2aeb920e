"""The supervisor's children, as real processes."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from loraland_core.errors import Unavailable
from loraland_local import children, processes
from loraland_local.board import Board
from loraland_local.children import Children
from loraland_local.layout import Layout, StackRecord, Station
from loraland_local.stations import Program

SERVE = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
FALL = "raise SystemExit('no such luck')"


@pytest.fixture
def board(tmp_path: Path) -> Board:
    stations = [Station(name="first"), Station(name="second")]
    record = StackRecord(state="starting", pid=1, base_model="m", grpc_port=1, stations=stations)
    return Board(Layout(tmp_path), record)


@pytest.fixture
async def family(board: Board, tmp_path: Path) -> AsyncIterator[Children]:
    found = Children(Layout(tmp_path), board)
    yield found
    found.stop()
    assert processes.marked(tmp_path) == []


def program(folder: Path, name: str, script: str, *, ready_timeout_s: float = 20) -> Program:
    ready = folder / f"{name}.ready"
    return Program(
        name=name,
        command=[sys.executable, "-c", script, str(ready)],
        env={},
        address="",
        ready_timeout_s=ready_timeout_s,
        ready_file=ready,
    )


async def test_fallen_child_is_started_again(
    family: Children, board: Board, tmp_path: Path
) -> None:
    """A child that was killed comes back with another pid."""
    served = program(tmp_path, "first", SERVE)
    family.start(served)
    await family.wait_ready(served)
    before = board.station("first").pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    watching = asyncio.create_task(family.watch())
    async with asyncio.timeout(30):
        while (  # noqa: ASYNC110 (the board has no event)
            after := board.station("first")
        ).state != "ready" or not after.restarts:
            await asyncio.sleep(0.05)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching

    assert (after.state, after.restarts, after.pid != before) == ("ready", 1, True)


async def test_child_that_never_stays_up_is_given_up(
    family: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many falls in a row the stack fails instead of trying for ever."""
    monkeypatch.setattr(children, "_MAX_RESTARTS", 0)
    family.start(program(tmp_path, "first", FALL))
    with pytest.raises(Unavailable, match="first fell 1 times in a row"):
        async with asyncio.timeout(20):
            await family.watch()


@pytest.mark.parametrize(
    ("script", "timeout_s", "expected"),
    [
        pytest.param(FALL, 30, "ended with status 1 while it started", id="ends"),
        pytest.param("import time; time.sleep(60)", 1, "did not serve within 1 s", id="hangs"),
    ],
)
async def test_child_that_does_not_serve_is_named(
    family: Children, tmp_path: Path, script: str, timeout_s: float, expected: str
) -> None:
    """The sentence says which station, and how it failed."""
    silent = program(tmp_path, "first", script, ready_timeout_s=timeout_s)
    family.start(silent)
    with pytest.raises(Unavailable) as failure:
        await family.wait_ready(silent)

    assert str(failure.value) == f"first {expected}"


async def test_log_tail_is_the_end_of_the_childs_words(family: Children, tmp_path: Path) -> None:
    """What a station said last explains its failure."""
    fallen = program(tmp_path, "first", FALL)
    family.start(fallen)
    with pytest.raises(Unavailable):
        await family.wait_ready(fallen)

    assert family.log_tail("first") == "no such luck"


async def test_stop_ends_the_last_started_first(
    family: Children, board: Board, tmp_path: Path
) -> None:
    """Nothing loses what it stands on while it still runs."""
    order: list[str] = []
    for name in ("first", "second"):
        served = program(tmp_path, name, SERVE)
        family.start(served)
        await family.wait_ready(served)
    stopped = board.stopped
    board.stopped = lambda name: (order.append(name), stopped(name))[1]  # type: ignore[method-assign]
    family.stop()

    assert order == ["second", "first"]
