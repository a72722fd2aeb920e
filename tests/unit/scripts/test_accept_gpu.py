"""What the acceptance of a GPU release measures, of a replica that is none."""

import argparse
import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
ADAPTERS = [f"default/accept-{index:02d}" for index in range(8)]


def load() -> Any:
    spec = importlib.util.spec_from_file_location("accept_gpu", ROOT / "scripts" / "accept_gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["accept_gpu"] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Piece:
    token_ids: tuple[int, ...] = (1, 2)


@dataclass
class Scored:
    logprob: float


class Replica:
    """Answers by the adapter's name; ``leak`` is added while others are at work."""

    def __init__(self, *, leak: float = 0.0, broken: str = "") -> None:
        self._leak = leak
        self._broken = broken
        self._busy = 0

    async def score(self, _: list[str], *, adapter: str, **__: Any) -> list[Scored]:
        self._busy += 1
        await asyncio.sleep(0)
        found = Scored(-float(adapter[-2:]) + (self._leak if self._busy > 1 else 0.0))
        self._busy -= 1
        return [found]

    async def stream(self, *, adapter: str, **_: Any) -> AsyncIterator[Piece]:
        if self._broken in (adapter, "all"):
            raise RuntimeError("no such adapter")
        for _n in range(3):
            await asyncio.sleep(0)
            yield Piece()


def options(tmp_path: Path) -> argparse.Namespace:
    found: argparse.Namespace = load().parse(
        [
            *("--address", "x:1", "--adapters", *ADAPTERS),
            *("--count", "5", "--slots", "4", "--requests", "40", "--concurrency", "4"),
            *("--report", str(tmp_path / "report.json")),
        ]
    )
    return found


def measure(replica: Replica, tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = asyncio.run(load().measure(replica, options(tmp_path)))
    return found


def test_replica_that_does_it_right_passes_parity_and_load(tmp_path: Path) -> None:
    """Each adapter answers as it does alone, and no request fails."""
    report = measure(Replica(), tmp_path)

    assert report["checks"]["parity"]
    assert report["checks"]["load"]
    assert report["parity"]["numDistinct"] == 5
    assert [report["cliff"][k]["num_adapters"] for k in ("fitting", "beyond")] == [2, 8]


def test_answers_that_depend_on_the_batch_fail(tmp_path: Path) -> None:
    """A leak between adapters is what parity is for."""
    report = measure(Replica(leak=3.0), tmp_path)

    assert not report["checks"]["parity"]
    assert report["parity"]["maxLogprobDifference"] == pytest.approx(3.0)
    assert not report["isPassed"]


def test_failed_requests_fail_the_load(tmp_path: Path) -> None:
    """A fast replica that refuses is no fast replica."""
    report = measure(Replica(broken=ADAPTERS[1]), tmp_path)

    assert report["load"]["num_failed"] == 8
    assert not report["checks"]["load"]


def test_release_that_answers_nobody_is_reported(tmp_path: Path) -> None:
    """A failure is a report, too, and one that every reader of JSON can read."""
    report = measure(Replica(broken="all"), tmp_path)

    assert not report["isPassed"]
    assert report["cliff"]["throughputRatio"] == 0.0
    assert json.dumps(report, allow_nan=False)


def test_too_few_adapters_for_the_cliff_are_refused(tmp_path: Path) -> None:
    """Half a measurement looks like a whole one."""
    with pytest.raises(SystemExit):
        load().parse(
            ["--address", "x:1", "--adapters", "a/b", "--report", str(tmp_path / "r.json")]
        )
