"""Which beginnings of prompts are kept, and where. No torch, no I/O: numbers of blocks only.

A block of a prompt is known by a hash over its tokens and all tokens before it, and the hash of the
first begins with whose it is: the tenant and the adapter's content. So neither tenants nor adapters
ever read each other's blocks, whatever an adapter is called. Full blocks only; the one that was used
least recently gives way, unless it is pinned.
"""

import hashlib
import json
from array import array
from collections import Counter

from loraland_engine.sequence import Sequence


class PrefixCache:
    """Up to ``num_blocks`` blocks by key; with none, it keeps nothing and finds nothing."""

    def __init__(self, *, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        # Of prompts that were looked up, and how many of those were found.
        self.num_query_tokens = 0
        self.num_hit_tokens = 0
        self._free = list(range(num_blocks - 1, -1, -1))
        # Least recently used first.
        self._blocks: dict[bytes, int] = {}
        self._pins: Counter[bytes] = Counter()

    @property
    def num_used(self) -> int:
        return len(self._blocks)

    def claim(self, sequence: Sequence) -> list[int]:
        """Return the blocks that hold the sequence's beginning; they are pinned until ``unpin``.

        At least one token is left to compute: somebody wants its logits.
        """
        keys = self._keys(sequence)
        if not keys:
            return []
        found = []
        for key in keys[: (sequence.num_reusable - 1) // self.block_tokens]:
            if key not in self._blocks:
                break
            found.append(key)
        # A chain is used from its end: whoever takes its head first makes the rest useless.
        for key in reversed(found):
            self._blocks[key] = self._blocks.pop(key)
        self._pins.update(found)
        self.num_query_tokens += sequence.num_reusable
        self.num_hit_tokens += len(found) * self.block_tokens
        return [self._blocks[key] for key in found]

    def unpin(self, sequence: Sequence, count: int) -> None:
        """Let go of the first ``count`` blocks of a sequence."""
        for key in sequence.prefix_keys[:count]:
            self._pins[key] -= 1
            if not self._pins[key]:
                del self._pins[key]

    def keep(self, sequence: Sequence, start: int, end: int) -> list[tuple[int, int]]:
        """Make room for the prompt's blocks that tokens [start, end) complete.

        Returns (index within the sequence, block) of those that are new: the caller fills them.
        """
        new = []
        keys = self._keys(sequence)
        for index in range(start // self.block_tokens, min(end // self.block_tokens, len(keys))):
            if keys[index] in self._blocks:
                continue
            block = self._free.pop() if self._free else self._evict(keys)
            if block is None:
                break
            self._blocks[keys[index]] = block
            new.append((index, block))
        return new

    def _evict(self, keys: list[bytes]) -> int | None:
        """Free the block used least recently; none that is pinned, nor of the chain ``keys``."""
        key = next((k for k in self._blocks if k not in self._pins and k not in keys), None)
        return None if key is None else self._blocks.pop(key)

    def _keys(self, sequence: Sequence) -> list[bytes]:
        """Return the keys of the full blocks of a sequence's prompt; computed once."""
        count = sequence.num_reusable // self.block_tokens if self.num_blocks else 0
        if not sequence.prefix_keys and count:
            owner = json.dumps([sequence.caller.tenant, sequence.adapter_id])
            key = owner.encode()
            for index in range(count):
                first = index * self.block_tokens
                tokens = array("q", sequence.token_ids[first : first + self.block_tokens])
                key = hashlib.blake2b(key + tokens.tobytes(), digest_size=16).digest()
                sequence.prefix_keys.append(key)
        return sequence.prefix_keys
