"""Blocks of KV memory: every one is free or in one table."""

from hypothesis import given
from hypothesis import strategies as st
from loraland_engine.block_manager import BlockManager


def test_extend_takes_blocks_for_the_tokens_that_a_table_does_not_cover() -> None:
    """Three tokens to a block: seven need three, an eighth and ninth need no other."""
    blocks = BlockManager(num_blocks=4, block_tokens=3)
    table: list[int] = []

    taken = [blocks.extend(table, n) for n in (7, 9, 10)]

    assert (taken, table, blocks.num_free) == ([True, True, True], [0, 1, 2, 3], 0)


def test_extend_takes_nothing_when_memory_is_short() -> None:
    """All or nothing, so that nobody holds what does not help."""
    blocks = BlockManager(num_blocks=2, block_tokens=4)
    table: list[int] = []

    assert (blocks.extend(table, 9), table, blocks.num_free) == (False, [], 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=80))
def test_free_and_used_blocks_are_all_blocks_whatever_happens(moves: list[tuple[int, int]]) -> None:
    """Over any trace of extensions and releases no block is lost or in two tables."""
    blocks = BlockManager(num_blocks=12, block_tokens=4)
    tables: list[list[int]] = [[], [], [], []]
    for owner, num_tokens in moves:
        if num_tokens:
            blocks.extend(tables[owner], num_tokens)
        else:
            blocks.release(tables[owner])
        held = [block for table in tables for block in table]

        assert len(held) == len(set(held)) == blocks.num_used
        assert blocks.num_free + blocks.num_used == 12
