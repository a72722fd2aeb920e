"""The embedded API against what a real kube-apiserver answered, where the recordings are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("LORALAND_SHARED") or ROOT.parent / "shared")


@pytest.mark.skipif(
    not (SHARED / "apiserver" / "kubectl.json").exists(), reason="the recordings are not here"
)
def test_recorded_steps_are_answered_the_same(tmp_path: Path) -> None:
    """Every recorded step agrees, except for what is left out on purpose."""
    page = tmp_path / "coverage.md"
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "parity" / "run.py", "--report", page],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "127 of 127 steps agree" in done.stdout
