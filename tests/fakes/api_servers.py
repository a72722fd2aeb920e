"""The embedded Kubernetes API as a process of its own, for tests that need a cluster's API."""

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_LIMIT_S = 60


@contextmanager
def api_process(state: Path, *, port: int = 0) -> Iterator[Path]:
    """Serve from ``state`` until the block ends; yields the kubeconfig."""
    command = [sys.executable, "-m", "loraland_local.api", "--state", str(state)]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_LIMIT_S)
        line = process.stdout.readline() if ready else ""
        assert line.startswith("ready "), f"the embedded API did not start: {line!r}"
        yield state / "kubeconfig"
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()
