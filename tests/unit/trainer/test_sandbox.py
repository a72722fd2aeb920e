"""Hostile programs get nowhere, and honest ones are told apart from them."""

import sys

import pytest
from loraland_core.errors import InvalidInput
from loraland_trainer import execution, sandbox

LIMIT_S = 60


@pytest.fixture(scope="module", autouse=True)
def _kept_in() -> None:
    try:
        sandbox.check()
    except sandbox.SandboxUnavailable as error:
        pytest.skip(str(error))


HONEST = {
    "library": "import collections, json, math, re, statistics\nassert json.loads('[1]') == [1]",
    "nobody": "import os\nassert (os.getuid(), os.getgid()) == (65534, 65534)",
    "alone": "import os\nassert os.getpid() < 10",
    "empty-folder": "import os\nassert os.getcwd() == '/work' and os.listdir() == []",
    "no-secrets": "import os\nassert not os.environ.keys() - {'LANG', 'LC_CTYPE'}",
    "few-processes": """
import os, signal
children = []
try:
    while len(children) < 64:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError:
    pass
assert 0 < len(children) < 16, len(children)
""",
}


@pytest.mark.parametrize("program", [pytest.param(p, id=name) for name, p in HONEST.items()])
def test_a_program_that_runs_to_its_end_passes(program: str) -> None:
    """It is nobody, alone, in an empty folder, with Python's standard library."""
    outcome = sandbox.run(program, wall_s=LIMIT_S)

    assert outcome == sandbox.Outcome(passed=True)


HOSTILE = {
    "wrong": ("assert 1 == 2", "AssertionError"),
    "early-exit": ("import os\nos._exit(0)", "ended with exit code 0"),
    "fork-bomb": ("import os\nwhile True:\n    os.fork()", "temporarily unavailable"),
    "memory": ("block = bytearray(300 << 20)", "MemoryError"),
    "network": (
        "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)",
        "Network is unreachable",
    ),
    "write-here": ("open('x', 'w')", "Read-only file system"),
    "write-library": ("import os\nopen(os.__file__, 'a')", "[Errno"),
    "write-outside": ("open('/tmp/x', 'w')", "No such file"),
    "read-outside": ("open('/etc/passwd')", "No such file"),
    "signal-parent": (
        "import contextlib, os\n"
        "with contextlib.suppress(PermissionError):\n    os.kill(os.getppid(), 9)\n"
        "raise SystemExit('nothing came of it')",
        "nothing came of it",
    ),
    "signal-all": ("import os\nos.kill(-1, 9)", "No such process"),
    "raise-limits": (
        "import resource as r\nr.setrlimit(r.RLIMIT_NPROC, (99, 99))",
        "not allowed to raise maximum limit",
    ),
    "leave": (
        "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0, 'kept in'",
        "kept in",
    ),
}


@pytest.mark.parametrize(
    ("program", "part"), [pytest.param(*given, id=name) for name, given in HOSTILE.items()]
)
def test_a_hostile_program_gets_nowhere(program: str, part: str) -> None:
    """What it tries is refused, and it fails."""
    outcome = sandbox.run(program, wall_s=LIMIT_S)

    assert not outcome.passed
    assert part in outcome.error


def test_an_endless_loop_has_two_seconds_of_cpu_time() -> None:
    """The kernel ends it: 128 and the number of SIGXCPU."""
    outcome = sandbox.run("while True:\n    pass", wall_s=LIMIT_S)

    assert outcome == sandbox.Outcome(passed=False, error="ended with exit code 152")


def test_a_program_that_sleeps_runs_out_of_time() -> None:
    """It uses no CPU time, so that the wall clock ends it."""
    outcome = sandbox.run("import time\ntime.sleep(600)", wall_s=0.5)

    assert outcome == sandbox.Outcome(passed=False, error="no end within 0.5 s")


def test_endless_output_is_dropped() -> None:
    """Only the end of it is kept."""
    outcome = sandbox.run("import sys\nwhile True:\n    sys.stderr.write('x' * 9999)", wall_s=1)

    assert not outcome.passed
    assert len(outcome.error) < 5000


def test_a_machine_that_cannot_keep_programs_in_runs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error says why, and what would help."""
    monkeypatch.setattr(sys, "platform", "darwin")

    with pytest.raises(InvalidInput, match=r"darwin has no namespaces.*runtimeClassName") as found:
        sandbox.run("pass")

    assert (found.value.field, found.value.reason) == (
        "spec.evaluation.metrics",
        "SandboxUnavailable",
    )


ADD = f"{execution.ANSWER}\nassert add(1, 2) == 3\n"
RIGHT = "def add(a, b):\n    return a + b"
WRONG = "def add(a, b):\n    return a - b"


def test_pass_at_1_is_the_share_of_programs_that_pass() -> None:
    """A code block in prose is taken out of it."""
    answers = [RIGHT, WRONG, f"Sure!\n```python\n{RIGHT}\n```\nThat adds.", "I cannot."]

    share = execution.pass_at_1(answers, [ADD] * 4)

    assert share == 0.5


def test_tests_that_no_right_answer_passes_are_found_before_training() -> None:
    """The message has the reason of the first one."""
    execution.check([RIGHT, WRONG], [ADD, ADD])

    with pytest.raises(InvalidInput, match=r"none of the first 2 held-out rows .* AssertionError"):
        execution.check([WRONG, WRONG], [ADD, ADD])
