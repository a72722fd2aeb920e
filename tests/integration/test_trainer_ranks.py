"""Two processes over gloo: one gradient, each its own random generator, also after an interruption."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import servers

LIMIT_S = 110
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
# What each process does: six steps with dropout, or with an end after three and a second start.
PROGRAM = Path(__file__).parents[1] / "fakes" / "rank_program.py"


def run(folder: Path, *steps: str) -> list[Any]:
    """Run two processes to their ends, once for each of the given last steps; return what they say."""
    folder.mkdir()
    for last in steps:
        port = str(servers.free_port())
        processes = [
            subprocess.Popen(
                [sys.executable, str(PROGRAM), str(folder), last],
                env=os.environ
                | {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": "2",
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port,
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": str(PROGRAM.parent),
                },
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in (0, 1)
        ]
        try:
            errors = [process.communicate(timeout=LIMIT_S)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [p.returncode for p in processes] == [0, 0], "\n".join(errors)[-4000:]
    return [json.loads((folder / f"said-{rank}.json").read_text()) for rank in (0, 1)]


def test_an_interrupted_group_goes_on_as_if_it_never_stopped(tmp_path: Path) -> None:
    """Each process draws dropout for itself, and all have one adapter, bit by bit."""
    whole = run(tmp_path / "whole", "99")
    resumed = run(tmp_path / "resumed", "3", "99")

    assert len(whole[0]["losses"]) == 6
    assert whole[0]["weights"] == whole[1]["weights"]
    assert whole[0]["random"] != whole[1]["random"]
    assert resumed == whole
