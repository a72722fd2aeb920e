"""The operator killed at a sample of the points at which `make crash` kills it."""

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parents[1] / "crash" / "run.py"


def test_every_tenth_point_is_survived(tmp_path: Path) -> None:
    """Nothing is lost, nothing is there twice."""
    file = tmp_path / "counts.json"
    result = subprocess.run(
        [sys.executable, str(RUN), "--every", "10", "--json", str(file)],
        check=False,
        capture_output=True,
        text=True,
        timeout=800,
    )
    counts = json.loads(file.read_text()) if file.exists() else {}

    assert result.returncode == 0, result.stdout + result.stderr
    assert counts["points_found"] == counts["points_survived"] > 0
    assert counts["duplicates"] == 0
