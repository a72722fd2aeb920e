"""Processes of a stack: found by their mark, and never left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from loraland_local import processes

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# Starts a sleeper through processes.start and tells its pid, then waits to be killed.
PARENT = """
import sys, time
from pathlib import Path
from loraland_local import processes
state = Path(sys.argv[1])
child = processes.start(
    [sys.executable, "-c", "import time; time.sleep(60)"],
    env=processes.environment(state), log=state / "log",
)
print(child.pid, flush=True)
time.sleep(60)
"""


def wait_gone(pid: int, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while processes.is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not processes.is_alive(pid)


def test_environment_carries_the_mark_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A station gets the mark, but not the caller's credentials."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    env = processes.environment(tmp_path, {"EXTRA": "1"})

    assert (env[processes.STACK_VARIABLE], env["EXTRA"], "AWS_SECRET_ACCESS_KEY" in env) == (
        str(tmp_path),
        "1",
        False,
    )


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        pytest.param("LORALAND_STACK_ID", "{state}", True, id="station"),
        pytest.param("LORALAND_ROOT", "{state}/kubelet/pods/1/rootfs/c", True, id="container"),
        pytest.param("LORALAND_STACK_ID", "{state}/demo", False, id="a-stack-within"),
        pytest.param("LORALAND_ROOT", "{state}/demo/kubelet/pods/1", False, id="its-container"),
        pytest.param("KUBECONFIG", "{state}/kubeconfig", False, id="the-users-shell"),
    ],
)
def test_marked_finds_what_belongs_to_the_stack(
    tmp_path: Path, variable: str, value: str, expected: bool
) -> None:
    """Only the marks count: a shell that merely names the directory is left alone."""
    env = {"PATH": os.environ["PATH"], variable: value.format(state=tmp_path)}
    child = subprocess.Popen(SLEEP, env=env)
    try:
        found = child.pid in [p.pid for p in processes.marked(tmp_path)]
    finally:
        child.kill()
        child.wait()

    assert found is expected


def test_sweep_kills_what_ignores_its_parents_end(tmp_path: Path) -> None:
    """A process that does not stop by itself is killed after the grace period."""
    child = subprocess.Popen(SLEEP, env=processes.environment(tmp_path))
    num_killed = processes.sweep(tmp_path, grace_s=0.1)
    is_alive = processes.is_alive(child.pid)
    child.wait(5)

    assert (num_killed, is_alive) == (1, False)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_started_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """SIGKILL gives the parent no chance to clean up; the kernel tells the child."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child_pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait(5)
    parent.stdout.close()

    assert wait_gone(child_pid)


def test_sweeper_kills_the_stack_when_its_pipe_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper acts on the end of its standard input, whatever ended the supervisor."""
    stubborn = subprocess.Popen(SLEEP, env=processes.environment(tmp_path))
    script = (
        "import sys; from loraland_local import sweeper; sweeper.GRACE_S = 0.1;"
        f" sys.argv = ['sweeper', '--state', {str(tmp_path)!r}]; sweeper.main()"
    )
    sweeper = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    assert sweeper.stdin is not None
    sweeper.stdin.close()
    sweeper.wait(20)

    assert (stubborn.wait(5), sweeper.returncode) == (-signal.SIGKILL, 0)


def test_stop_kills_a_child_that_ignores_the_request(tmp_path: Path) -> None:
    """A child that ignores SIGTERM does not keep its parent waiting."""
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(60)"
    log = tmp_path / "log"
    child = processes.start(
        [sys.executable, "-u", "-c", script], env=processes.environment(tmp_path), log=log
    )
    while not log.read_text():
        time.sleep(0.02)
    processes.stop(child, grace_s=0.1)

    assert (child.returncode, psutil.pid_exists(child.pid)) == (-signal.SIGKILL, False)
