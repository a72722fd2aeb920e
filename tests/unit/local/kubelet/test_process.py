"""Processes under their launcher."""

import asyncio
import pathlib
import sys
import time

import psutil
import pytest
from loraland_local.kubelet import process
from loraland_local.kubelet.process import Command, Process, StartError

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "MARK": "here"}


def shell(script: str, directory: pathlib.Path) -> Command:
    return Command(["sh", "-c", script], ENVIRONMENT, directory)


async def start(script: str, directory: pathlib.Path) -> tuple[Process, list[bytes]]:
    """Start the script and wait until it has said something."""
    said: list[bytes] = []
    spoke = asyncio.Event()

    def listen(name: str, chunk: bytes) -> None:
        said.append(name.encode() + b":" + chunk)
        spoke.set()

    started = await Process.start(shell(script, directory), listen)
    await spoke.wait()
    return started, said


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def still_alive(relatives: list[psutil.Process]) -> list[psutil.Process]:
    """Return who runs after a moment; a zombie that nobody has collected yet does not."""
    _, left = psutil.wait_procs(relatives, timeout=1)
    return [found for found in left if found.is_running() and found.status() != "zombie"]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param("exit 0", 0, id="well"),
        pytest.param("exit 42", 42, id="code"),
        pytest.param("kill -TERM $$", 143, id="signal"),
        pytest.param("kill -KILL $$", 137, id="killed"),
    ],
)
async def test_exit_code_is_the_containers(
    tmp_path: pathlib.Path, script: str, expected: int
) -> None:
    """The code is the process's own, or 128 and its signal."""
    code, _ = await process.run(shell(script, tmp_path), 10, 100)

    assert code == expected


async def test_process_gets_its_surroundings_and_nothing_else(tmp_path: pathlib.Path) -> None:
    """Directory and variables are those of the command, and standard input is empty."""
    script = 'pwd; echo "$MARK ${HOME-none}"; cat; echo done'
    _, output = await process.run(shell(script, tmp_path), 10, 1000)

    assert output.splitlines() == [str(tmp_path), "here none", "done"]


async def test_command_that_cannot_start_says_why(tmp_path: pathlib.Path) -> None:
    """A missing program is named."""
    with pytest.raises(StartError, match="'no-such-program': No such file or directory"):
        await process.run(Command(["no-such-program"], ENVIRONMENT, tmp_path), 10, 100)


async def test_slow_command_is_killed(tmp_path: pathlib.Path) -> None:
    """A command that takes too long does not stay."""
    with pytest.raises(TimeoutError):
        await process.run(shell("exec sleep 60", tmp_path), 0.1, 100)


async def test_end_of_the_first_process_ends_its_descendants(tmp_path: pathlib.Path) -> None:
    """What a container leaves in the background goes with it, even from another session."""
    running, _ = await start("setsid sleep 60 & echo up; sleep 0.3; exit 7", tmp_path)
    relatives = family(running.pid)
    code = await running.wait()

    assert code == 7
    assert len(relatives) >= 2
    assert still_alive(relatives) == []


async def test_stop_gives_grace_and_then_none(tmp_path: pathlib.Path) -> None:
    """SIGTERM goes to the first process; when it does not end in time, all are killed."""
    running, _ = await start("trap '' TERM; sleep 60 & echo up; wait; sleep 60", tmp_path)
    relatives = family(running.pid)
    began = time.monotonic()
    code = await running.stop(0.3)

    assert code == 137
    assert 0.3 <= time.monotonic() - began < 5
    assert still_alive(relatives) == []


async def test_stop_lets_the_process_say_goodbye(tmp_path: pathlib.Path) -> None:
    """A process that ends on SIGTERM chooses its own code, and its last words are heard."""
    script = "trap 'echo bye; exit 3' TERM; sleep 60 & echo up; wait"
    running, said = await start(script, tmp_path)
    code = await running.stop(10)

    assert (code, said) == (3, [b"stdout:up\n", b"stdout:bye\n"])


async def test_family_dies_with_the_one_that_started_it(tmp_path: pathlib.Path) -> None:
    """After SIGKILL of the starter, launcher, process and strayed children are gone."""
    script = f"""
import asyncio, pathlib
from loraland_local.kubelet.process import Command, Process
async def main():
    family = "setsid sleep 60 & exec sleep 61"
    command = Command(["sh", "-c", family], {{"PATH": "/usr/bin:/bin"}}, pathlib.Path({str(tmp_path)!r}))
    running = await Process.start(command, lambda name, chunk: None)
    await asyncio.sleep(0.3)
    print(running.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    launcher = psutil.Process(int(await starter.stdout.readline()))
    relatives = [launcher, *launcher.children(recursive=True)]
    starter.kill()
    await starter.wait()

    assert len(relatives) == 3
    assert still_alive(relatives) == []
