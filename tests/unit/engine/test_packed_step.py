"""Rows of a step are cut so that each is in one tile, and decoding rows never share one with a prompt's."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from loraland_engine import packed_step, tile_lora


@dataclass
class Piece:
    """What a chunk is to this module."""

    start: int
    end: int
    sequence: Any

    @property
    def num_tokens(self) -> int:
        return self.end - self.start


def chunk(start: int, count: int, slot: int) -> Any:
    sequence = SimpleNamespace(kv_slot=slot, adapter_slot=slot % 2, request_id=str(slot))
    return Piece(start, start + count, sequence)


@pytest.mark.parametrize("has_tiles", [False, True])
@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_each_row_is_in_one_tile(num_threads: int, has_tiles: bool) -> None:
    """Whatever the chunks; rows of one tile have one adapter."""
    chunks = [*(chunk(9, 1, slot) for slot in range(5)), chunk(0, 65, 5), chunk(7, 150, 6)]

    step = packed_step.build(chunks, group_size=3, num_threads=num_threads, has_tiles=has_tiles)

    rows = sorted(row for first, count in step.tile_I2 for row in range(first, first + count))
    owners = [slot % 2 for slot in range(5)] + [1] * 65 + [0] * 150
    assert rows == list(range(220))
    assert step.num_decoding == 5
    assert all(
        {owners[row] for row in range(first, first + count)} == {slot}
        for (first, count), slot in zip(step.tile_I2, step.slot_I, strict=True)
    )


def test_decoding_rows_share_no_tile_with_a_prompt() -> None:
    """Not even where both have the same adapter: they are multiplied in other ways."""
    step = packed_step.build(
        [chunk(9, 1, 0), chunk(0, 20, 2)], group_size=3, num_threads=1, has_tiles=True
    )

    assert sorted(map(tuple, step.tile_I2)) == [(0, 1), (1, 10), (11, 10)]


def test_tiles_of_a_long_prompt_are_even_and_no_larger_than_they_may_be() -> None:
    """No tile is left with a few rows, which would be multiplied as decoding ones are."""
    step = packed_step.build(
        [chunk(0, 4 * tile_lora.TILE_ROWS + 1, 0)], group_size=3, num_threads=2, has_tiles=True
    )

    counts = step.tile_I2[:, 1].tolist()
    assert max(counts) - min(counts) <= 1
    assert max(counts) <= tile_lora.TILE_ROWS
