"""Which blocks of KV memory belong to whom. No torch, no I/O: numbers only.

A block holds the keys and values of ``block_tokens`` tokens of one sequence. Where the device keeps
its pages apart, a table's numbers are their places; on a CPU, where a sequence's rows lie in one
piece, they bound how much of that memory is in use.
"""


class BlockManager:
    """A fixed number of blocks, each free or in one sequence's table."""

    def __init__(self, *, num_blocks: int, block_tokens: int) -> None:
        assert num_blocks > 0, num_blocks
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self._free = list(range(num_blocks - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    def num_needed(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_tokens)

    def extend(self, table: list[int], num_tokens: int) -> bool:
        """Let a table cover ``num_tokens``; False, and nothing taken, where memory is short."""
        num_missing = self.num_needed(num_tokens) - len(table)
        if num_missing > len(self._free):
            return False
        table += [self._free.pop() for _ in range(num_missing)]
        return True

    def release(self, table: list[int]) -> None:
        """Take back all blocks of a table, and empty it."""
        self._free += reversed(table)
        table.clear()
