"""A step's rows cut up for threads to share: tiles of rows with one adapter, pieces of prompts. No I/O.

Shapes: T packed tokens, I tiles or strips.
"""

import itertools

import numpy as np

from loraland_engine import decoder, prompt_attention, prompt_lora, row_kernels, tile_lora
from loraland_engine.scheduler import Chunk

# Fewer would leave a thread alone with the last one; each has an adapter's weights rounded anew.
_TILES_A_THREAD = 2
# First row, number of rows, slot of the adapter, rows that it has room for.
_Tile = tuple[int, int, int, int]


def build(
    chunks: list[Chunk], *, group_size: int, num_threads: int, has_tiles: bool
) -> decoder.Step:
    """Lay the chunks' rows one after the other; those that decode are first among them.

    ``has_tiles`` says whether rows of prompts are multiplied in tile registers.
    """
    tile_rows = _tile_rows(chunks, num_threads) if has_tiles else prompt_lora.TILE_ROWS
    positions: list[int] = []
    kv_slots: list[int] = []
    tiles: list[_Tile] = []
    pieces = []
    for chunk in chunks:
        first, slot = len(positions), chunk.sequence.kv_slot
        assert slot is not None, chunk.sequence.request_id
        positions += range(chunk.start, chunk.end)
        kv_slots += [slot] * chunk.num_tokens
        size = tile_rows if chunk.num_tokens > 1 else row_kernels.TILE_ROWS
        _add_tiles(tiles, (first, len(positions)), chunk.sequence.adapter_slot, size)
        if chunk.num_tokens > 1:
            pieces.append((first, chunk.start, chunk.num_tokens, slot))
    # The largest first, so that threads that share them out end together.
    table = np.array(sorted(tiles, key=lambda tile: -tile[1]), dtype=np.int64)
    table = np.concatenate([table[i::num_threads] for i in range(num_threads)])
    return decoder.Step(
        position_T=np.array(positions, dtype=np.int64),
        kv_slot_T=np.array(kv_slots, dtype=np.int64),
        tile_I2=np.ascontiguousarray(table[:, :2]),
        slot_I=np.ascontiguousarray(table[:, 2]),
        num_decoding=sum(1 for c in chunks if c.num_tokens == 1),
        strip_I4=prompt_attention.build_strips(pieces, group_size=group_size),
        pieces=pieces,
    )


def _tile_rows(chunks: list[Chunk], num_threads: int) -> int:
    """Return how many rows of prompts share a tile: some tiles for each thread."""
    num_rows = sum(chunk.num_tokens for chunk in chunks if chunk.num_tokens > 1)
    share = -(-num_rows // (_TILES_A_THREAD * num_threads))
    return min(tile_lora.TILE_ROWS, max(share, prompt_lora.TILE_ROWS))


def _add_tiles(tiles: list[_Tile], rows: tuple[int, int], adapter_slot: int, size: int) -> None:
    """Cut rows into tiles, one as large as the other; those of one adapter in a row share one.

    Not rows that decode and rows of prompts: they are multiplied in other ways.
    """
    first, last = rows
    if tiles and tiles[-1][2:] == (adapter_slot, size) and tiles[-1][1] < size:
        first = tiles.pop()[0]
    num_tiles = -(-(last - first) // size)
    edges = [first + (last - first) * i // num_tiles for i in range(num_tiles + 1)]
    tiles += [(start, end - start, adapter_slot, size) for start, end in itertools.pairwise(edges)]
