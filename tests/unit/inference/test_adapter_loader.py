"""The engine's threads for adapters: each answers, whatever a file or a disk does."""

import errno
import queue
import threading
from pathlib import Path
from typing import Any

import pytest
from loraland_core.errors import ArtifactInvalid
from loraland_inference.adapter_loader import AdapterLoader
from loraland_inference.messages import Message

LIMIT_S = 60.0


class FakeReader:
    """Raises what is set for a path; ``pack`` waits while the gate is closed."""

    def __init__(self) -> None:
        self.failing: dict[str, Exception] = {}
        self.gate = threading.Event()
        self.gate.set()

    def pack(self, folder: Path, path: Path) -> int:
        assert self.gate.wait(LIMIT_S)
        if str(folder) in self.failing:
            raise self.failing[str(folder)]
        return len(str(path))

    def read_packed(self, path: Path) -> str:
        if str(path) in self.failing:
            raise self.failing[str(path)]
        return f"adapter of {path}"


class World:
    def __init__(self) -> None:
        self.reader = FakeReader()
        self.said: queue.Queue[Any] = queue.Queue()
        self.loader = AdapterLoader(
            self.reader,  # type: ignore[arg-type]
            send=self.said.put,
            insert=lambda message, adapter: self.said.put((message["digest"], adapter)),
        )
        self.loader.start()

    def post(self, kind: str, name: str) -> None:
        message: Message = {"type": kind, "digest": name, "folder": name, "path": name}
        self.loader.post(message)

    def next(self) -> Any:
        return self.said.get(timeout=LIMIT_S)


def test_load_is_not_held_up_by_a_packing() -> None:
    """What is packed already is mapped at once."""
    world = World()
    world.reader.gate.clear()
    world.post("pack", "large")
    world.post("load", "small")
    first = world.next()
    world.reader.gate.set()
    second = world.next()

    assert first == ("small", "adapter of small")
    assert second == {"type": "packed", "digest": "large", "size_bytes": 5}


@pytest.mark.parametrize("kind", ["pack", "load"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ArtifactInvalid("rank 99", reason="RankOverLimit"), "RankOverLimit"),
        (OSError(errno.ENOSPC, "No space left on device"), "HostTierFull"),
        (OSError(errno.EIO, "Input/output error"), "ArtifactInvalid"),
        (ZeroDivisionError("hostile"), "ArtifactInvalid"),
    ],
    ids=["refused", "full", "disk", "library"],
)
def test_fault_is_answered_and_the_next_one_is_taken(
    kind: str, error: Exception, reason: str
) -> None:
    """The reason tells whose fault it is; the thread lives on."""
    world = World()
    world.reader.failing["bad"] = error
    world.post(kind, "bad")
    world.post(kind, "good")
    refused, taken = world.next(), world.next()

    assert (refused["type"], refused["digest"], refused["reason"]) == (
        f"{kind}-failed",
        "bad",
        reason,
    )
    assert "good" in (taken if kind == "load" else taken.values())
