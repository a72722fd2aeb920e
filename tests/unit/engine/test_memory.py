"""What is free, and how many blocks fit into it."""

from pathlib import Path

import pytest
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


@pytest.mark.parametrize(("total", "expected"), [(1000, 10), (9999, 20)], ids=["fits", "capped"])
def test_num_blocks_is_what_fits_and_can_be_used(total: int, expected: int) -> None:
    """No more blocks than all sequences together could fill."""
    assert memory.num_blocks(total, block_bytes=100, context_blocks=4, at_most=20) == expected


def test_num_blocks_refuses_memory_that_holds_no_context() -> None:
    """The message says how much one context takes."""
    with pytest.raises(InvalidInput, match="kv_memory_bytes: is 300 bytes; one context alone"):
        memory.num_blocks(300, block_bytes=100, context_blocks=4, at_most=20)
