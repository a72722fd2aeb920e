"""Things break at random, and nobody is told a wrong thing or two things."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS, SEED = 40, 7
KINDS = {
    "replica killed", "replica drained", "engine killed", "engine paused", "Redis killed",
    "Redis paused", "S3 killed", "new digest", "adapter disabled",
}  # fmt: skip


def test_chaos_violates_nothing(tmp_path: Path) -> None:
    """Every sort of fault under load: each request has one outcome, and nothing is left behind."""
    report = tmp_path / "chaos.json"
    arguments = ["--seconds", str(SECONDS), "--seed", str(SEED), "--json", str(report)]
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "chaos.py"), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests" / "fakes")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr[-4000:]
    found = json.loads(report.read_text())
    assert (found["violations"], sum(found["outcomes"].values())) == ([], found["requests"])
    assert set(found["faults"]) == KINDS
    assert found["outcomes"]["OK"] > 0
