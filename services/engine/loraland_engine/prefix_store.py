"""Keys and values of the beginnings of prompts, kept after their sequences are gone.

A sequence's rows lie in its own slot of KV memory; a block that is found is copied there, which costs
a small part of computing it.

Shapes: N blocks, Y layers, H key/value heads, B tokens of a block, D head size; 2 is key and value.
"""

from torch import Tensor

from loraland_engine.kv_memory import KvMemory, zeros
from loraland_engine.prefix_cache import PrefixCache
from loraland_engine.scheduler import Chunk


class PrefixStore:
    """The memory behind a ``PrefixCache``."""

    def __init__(self, kv: KvMemory, cache: PrefixCache) -> None:
        num_layers, _, _, num_heads, _, head_size = kv.rows.shape
        shape = (cache.num_blocks, num_layers, 2, num_heads, cache.block_tokens, head_size)
        self._kv = kv
        self._cache = cache
        self._blocks_NY2HBD = zeros(shape, kv.rows.dtype, kv.rows.device)

    def restore(self, chunks: list[Chunk]) -> None:
        """Copy what was found into the slots of those that begin with this step."""
        for sequence in (c.sequence for c in chunks if c.sequence.prefix_blocks):
            for index, block in enumerate(sequence.prefix_blocks):
                self._rows(sequence.kv_slot, index).copy_(self._blocks_NY2HBD[block])
            self._cache.unpin(sequence, len(sequence.prefix_blocks))
            sequence.prefix_blocks = []

    def keep(self, chunks: list[Chunk]) -> None:
        """Copy the blocks of prompts that this step has completed."""
        for chunk in chunks:
            if chunk.start < chunk.sequence.num_reusable:
                for index, block in self._cache.keep(chunk.sequence, chunk.start, chunk.end):
                    self._blocks_NY2HBD[block].copy_(self._rows(chunk.sequence.kv_slot, index))

    def _rows(self, kv_slot: int | None, index: int) -> Tensor:
        """Return a view [Y, 2, H, B, D] of a sequence's block."""
        assert kv_slot is not None
        size = self._cache.block_tokens
        return self._kv.rows[:, :, kv_slot, :, index * size : (index + 1) * size]
