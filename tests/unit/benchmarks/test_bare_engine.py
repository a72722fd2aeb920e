"""The benchmark's own slots: the engine is a fake, adapters are numbers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bare_engine import DRAIN_AFTER_S, Residents


class FakeEngine:
    def __init__(self, num_slots: int) -> None:
        self.config = SimpleNamespace(num_slots=num_slots)
        self.adapters = self
        self.inserted: list[str] = []

    def pack(self, folder: Path, path: Path) -> None:
        path.write_text(folder.name)

    def read_packed(self, path: Path) -> str:
        return path.read_text()

    def insert_adapter(self, adapter_id: str, _: Any) -> None:
        assert len(self.inserted) < self.config.num_slots
        self.inserted.append(adapter_id)

    def remove_adapter(self, adapter_id: str) -> None:
        self.inserted.remove(adapter_id)


def build(num_slots: int, count: int, root: Path) -> tuple[FakeEngine, Residents]:
    """Return residents that have packed ``count`` adapters."""
    engine = FakeEngine(num_slots)
    residents = Residents(engine, [Path(str(i)) for i in range(count)], root=root)  # type: ignore[arg-type]
    residents.read_all(list(range(count)))
    return engine, residents


def acquire(residents: Residents, adapter: int, waited_s: float) -> bool:
    """Try twice: the first time may begin to map the packed file."""
    if residents.acquire(adapter, waited_s):
        return True
    residents.settle()
    return residents.acquire(adapter, waited_s)


def test_least_recently_used_adapter_gives_way(tmp_path: Path) -> None:
    """One that nobody uses leaves its slot to who comes."""
    engine, residents = build(2, 3, tmp_path)
    for adapter in (0, 1):
        assert acquire(residents, adapter, 0.0)
        residents.release(adapter)

    assert acquire(residents, 2, 0.0)
    assert engine.inserted == ["1", "2"]


def test_adapter_in_use_drains_for_who_waits_long(tmp_path: Path) -> None:
    """It takes no new requests until it has left its slot, and who waited has it."""
    engine, residents = build(1, 2, tmp_path)
    assert acquire(residents, 0, 0.0)
    assert not acquire(residents, 1, DRAIN_AFTER_S + 0.1)
    assert not acquire(residents, 0, 0.0)
    residents.release(0)

    assert acquire(residents, 1, DRAIN_AFTER_S + 0.1)
    assert engine.inserted == ["1"]


@pytest.mark.parametrize("size", [3, 1])
def test_slots_are_filled_up_to_their_number(tmp_path: Path, size: int) -> None:
    """All that were packed are in slots before a run where there are as many."""
    engine, residents = build(3, 3, tmp_path)
    residents.resize(3)
    residents.resize(size)

    assert len(engine.inserted) == size
