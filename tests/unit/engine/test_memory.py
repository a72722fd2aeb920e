"""What is free, and how many blocks fit into it."""

from pathlib import Path

import pytest
import torch
from loraland_core.errors import InvalidInput
from loraland_engine import memory


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max", 4096 * 1024), ("3000000", 2000000), ("500", 0), (None, 4096 * 1024)],
    ids=["no-limit", "container", "over-its-limit", "no-container"],
)
def test_free_memory_is_the_machines_or_the_containers(
    tmp_path: Path, limit: str | None, expected: int
) -> None:
    """Whichever is less; a container without a limit has the machine's."""
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4096 kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("1000000\n")

    assert memory.free_cpu_bytes(tmp_path / "meminfo", tmp_path) == expected


@pytest.mark.parametrize(
    ("total", "expected"),
    [(400, (4, 0)), (600, (5, 1)), (1600, (12, 4)), (99_999, (20, 20))],
    ids=["one-context", "little", "a-quarter-is-kept", "capped"],
)
def test_divide_gives_what_runs_its_context_and_a_quarter_to_prefixes(
    total: int, expected: tuple[int, int]
) -> None:
    """No more blocks than all sequences together could fill."""
    assert memory.divide(total, block_bytes=100, context_blocks=4, at_most=20) == expected


def test_divide_refuses_memory_that_holds_no_context() -> None:
    """The message says how much one context takes."""
    with pytest.raises(InvalidInput, match="kv_memory_bytes: is 300 bytes; one context alone"):
        memory.divide(300, block_bytes=100, context_blocks=4, at_most=20)


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cpu", 16), ("cuda", 7), ("meta", 7)],
    ids=["page-by-page", "at-once", "any-other"],
)
def test_num_slots_is_what_fits_where_memory_is_had_at_once(device: str, expected: int) -> None:
    """A quarter is left to prefixes; on a CPU blocks are what is counted."""
    assert memory.num_slots(torch.device(device), 16, 1000, slot_bytes=100) == expected
