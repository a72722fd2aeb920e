"""Programs that a model wrote, run where they can do no harm: without network, as nobody, in limits.

What keeps them in is in ``jail``. The wall clock is kept here, and what a program prints is dropped
but for the end of its errors.
"""

import os
import secrets
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from loraland_core.errors import InvalidInput

from loraland_trainer import jail

# A program that sleeps uses no CPU time; one that computes has it all within this, on a busy machine.
WALL_S = 10.0
_KEPT_BYTES = 2048


@dataclass(frozen=True)
class Outcome:
    """Whether a program ran to its end, and else the end of what it said."""

    passed: bool
    error: str = ""


class SandboxUnavailable(InvalidInput):
    """This machine does not let programs be kept in; none is run."""


def run(program: str, *, wall_s: float = WALL_S) -> Outcome:
    """Run a Python program; raise ``SandboxUnavailable`` where it could not be kept in."""
    if sys.platform != "linux":
        raise _unavailable(f"{sys.platform} has no namespaces")
    key = secrets.token_hex(16).encode()
    with tempfile.TemporaryDirectory(prefix="sandbox-") as root:
        code, said = _run(Path(root), key + b"\n" + program.encode(), wall_s)
    if said.endswith(key) and code == 0:
        return Outcome(passed=True)
    error = said.decode(errors="replace").strip()
    if code == jail.UNAVAILABLE:
        raise _unavailable(error or "no reason was given")
    if code is None:
        return Outcome(passed=False, error=f"no end within {wall_s:g} s")
    return Outcome(passed=False, error=error or f"ended with exit code {code}")


def check() -> None:
    """Raise ``SandboxUnavailable`` unless a program can be kept in here."""
    outcome = run("pass")
    if not outcome.passed:
        raise _unavailable(outcome.error)


def _unavailable(why: str) -> SandboxUnavailable:
    return SandboxUnavailable(
        "PassAt1 runs what the model writes, as nobody and without network, and this pod cannot keep"
        f" a program in ({why}). It needs user namespaces, which the default seccomp profile of most"
        " clusters forbids: name a pod.runtimeClassName whose pods have them (gVisor, Kata), or use"
        " another metric",
        field="spec.evaluation.metrics",
        reason="SandboxUnavailable",
    )


def _run(root: Path, given: bytes, wall_s: float) -> tuple[int | None, bytes]:
    """Return exit code (None: it ran out of time) and the end of what was said on standard error."""
    with tempfile.TemporaryFile() as source:
        source.write(given)
        source.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", jail.__file__, str(root)],
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,
        )
    assert process.stderr is not None
    with process.stderr:
        try:
            said, is_over = _read_tail(process.stderr.fileno(), time.monotonic() + wall_s)
            code = process.wait(wall_s) if is_over else None
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Its end is the end of all that it started.
            process.kill()
            process.wait()
    return code, said


def _read_tail(descriptor: int, deadline_s: float) -> tuple[bytes, bool]:
    """Read to the end or the deadline; return the last bytes, and whether the end was reached."""
    tail = b""
    while (left_s := deadline_s - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left_s)[0]:
            break
        piece = os.read(descriptor, 65536)
        if not piece:
            return tail, True
        tail = (tail + piece)[-_KEPT_BYTES:]
    return tail, False
