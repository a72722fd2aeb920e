"""Replays recorded kubectl steps against the embedded API: `python tests/parity/run.py`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import comparison
import embedded
import exchanges
import recordings
import replay
import report

PAGE = Path(__file__).parents[2] / "docs" / "api-coverage.md"


def run_steps(steps: list[dict[str, Any]]) -> dict[int, list[recordings.Difference]]:
    """Replay all steps in order; returns the differences of each that has some."""
    found: dict[int, list[recordings.Difference]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in recordings.files(steps).items():
            (folder / file).write_text(text)
        with embedded.running(folder / "state") as server:
            for step in steps:
                server.recorder.take()
                outcome = replay.run(step, server, folder)
                faults = comparison.compare(step, outcome, server.recorder.take())
                if faults:
                    found[step["step"]] = faults
    return found


def run_exchanges(steps: list[dict[str, Any]]) -> dict[str, list[recordings.Difference]]:
    with tempfile.TemporaryDirectory() as name, embedded.running(Path(name)) as server:
        return exchanges.replay(steps, server)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, default=PAGE, help="the page to write")
    arguments = parser.parse_args()
    if recordings.folder() is None:
        sys.stderr.write(
            "the recordings are not here: point LORALAND_SHARED at the folder with apiserver/\n"
        )
        return 2
    steps = recordings.load("kubectl.json")
    result = report.Result(
        steps, run_steps(steps), run_exchanges(recordings.load("kopf-and-helm.json"))
    )
    sys.stdout.write(result.text() + "\n")
    arguments.report.write_text(result.page())
    return 1 if result.differing or result.differing_exchanges else 0


if __name__ == "__main__":
    sys.exit(main())
