"""Which tokens of which sequences run in the next step. No torch, no I/O; time is passed in.

Every step decodes all sequences whose prompt is done and fills what is left of the token budget with
pieces of prompts, so that a long prompt delays others by at most one step. ``fairness`` says who is
admitted next; a sequence is admitted when a KV slot and the blocks for its tokens are free. Where a
running one finds no block for its next token, the newest gives way: it waits again, and is computed
again. The oldest never does, so that there is always progress.
"""

import itertools
from dataclasses import dataclass

from loraland_engine.block_manager import BlockManager
from loraland_engine.fairness import INPUT_COST, OUTPUT_COST, FairQueue
from loraland_engine.limits import NO_LIMITS, Limits
from loraland_engine.prefix_cache import PrefixCache
from loraland_engine.sequence import FinishReason, Sequence

# An account that got nothing for so long is treated like the highest priority that waits.
LIFT_AFTER_S = 1.0


@dataclass(frozen=True)
class Chunk:
    """Tokens [start, end) of one sequence, to be computed in this step."""

    sequence: Sequence
    start: int
    end: int

    @property
    def num_tokens(self) -> int:
        return self.end - self.start

    @property
    def is_last(self) -> bool:
        """Whether nothing that is known remains to be computed after it."""
        return self.end == len(self.sequence.token_ids)


class Scheduler:
    """Waiting and running sequences, and the KV slots and blocks that bound how many run."""

    def __init__(
        self,
        *,
        max_running: int,
        max_step_tokens: int,
        blocks: BlockManager,
        prefixes: PrefixCache,
        limits: Limits = NO_LIMITS,
    ) -> None:
        assert max_step_tokens >= max_running, (max_step_tokens, max_running)
        self.num_preemptions = 0
        self._max_step_tokens = max_step_tokens
        self._blocks = blocks
        self._prefixes = prefixes
        self._limits = limits
        self._free_kv_slots = list(range(max_running - 1, -1, -1))
        self._waiting = FairQueue(lift_after_s=LIFT_AFTER_S)
        # In order of admission.
        self._running: list[Sequence] = []
        self._by_id: dict[str, Sequence] = {}
        self._order = itertools.count()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def has_work(self) -> bool:
        return bool(self._by_id)

    def uses_adapter(self, adapter_slot: int) -> bool:
        return any(s.adapter_slot == adapter_slot for s in self._by_id.values())

    def add(self, *sequences: Sequence) -> None:
        """Let them wait, all or none; raise ``EngineFull`` where that is too much."""
        waiting = [s for s in self._by_id.values() if s.kv_slot is None]
        self._limits.check(
            num_waiting=len(waiting),
            num_tokens=sum(s.num_at_most for s in waiting),
            num_kv_tokens=self._blocks.num_blocks * self._blocks.block_tokens,
        )
        for sequence in sequences:
            assert sequence.request_id not in self._by_id, sequence.request_id
            sequence.order = next(self._order)
            self._by_id[sequence.request_id] = sequence
            self._waiting.push(sequence)

    def cancel(self, request_id: str) -> None:
        """Mark a request; the next ``reap`` ends it. One that has ended already is no error."""
        sequence = self._by_id.get(request_id)
        if sequence is not None:
            sequence.cancelled = True

    def reap(self, now_s: float) -> list[tuple[Sequence, FinishReason]]:
        """Remove what was cancelled or is past its deadline, waiting or running."""
        ended = [(s, reason) for s in self._by_id.values() if (reason := _verdict(s, now_s))]
        for sequence, _ in ended:
            self.remove(sequence)
        return ended

    def schedule(self, now_s: float) -> list[Chunk]:
        """Return the step's chunks: decodes first, then prompts in order of admission."""
        is_short = self._make_room()
        chunks = [_chunk(s, 1) for s in self._running if s.num_remaining == 1]
        budget = self._max_step_tokens - len(chunks)
        partial = [s for s in self._running if s.num_remaining > 1]
        while budget > 0:
            sequence = partial.pop(0) if partial else None if is_short else self._admit(now_s)
            if sequence is None:
                break
            chunks.append(_chunk(sequence, min(budget, sequence.num_remaining)))
            budget -= chunks[-1].num_tokens
        for chunk in chunks:
            if chunk.is_last and chunk.sequence.score_from is None:
                self._waiting.charge(chunk.sequence, OUTPUT_COST)
        return chunks

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence and free what it holds."""
        del self._by_id[sequence.request_id]
        if sequence.kv_slot is None:
            self._waiting.remove(sequence)
        else:
            self._release(sequence)
        if not self._by_id:
            self._waiting.reset()

    def _make_room(self) -> bool:
        """Give every running sequence blocks for all its tokens; True if one had to give way."""
        num_before = self.num_preemptions
        for sequence in list(self._running):
            # One that gave way meanwhile has no slot.
            while sequence.kv_slot is not None and not self._extend(sequence):
                self._preempt(self._running[-1])
        return self.num_preemptions > num_before

    def _extend(self, sequence: Sequence) -> bool:
        return self._blocks.extend(sequence.block_table, len(sequence.token_ids))

    def _preempt(self, sequence: Sequence) -> None:
        assert len(self._running) > 1, "one sequence fits KV memory by itself"
        self._release(sequence)
        sequence.num_computed = 0
        self.num_preemptions += 1
        self._waiting.push(sequence)

    def _admit(self, now_s: float) -> Sequence | None:
        sequence = self._waiting.peek(now_s)
        if sequence is None or not self._free_kv_slots or not self._has_room(sequence):
            return None
        if self._awaits_prefix(sequence):
            return None
        self._waiting.pop(sequence, now_s)
        taken = self._extend(sequence)
        assert taken, sequence.request_id
        sequence.kv_slot = self._free_kv_slots.pop()
        sequence.prefix_blocks = self._prefixes.claim(sequence)
        sequence.num_computed = len(sequence.prefix_blocks) * self._prefixes.block_tokens
        self._running.append(sequence)
        # One that had to give way is not charged for what is computed a second time.
        if sequence.admitted_s is None:
            sequence.admitted_s = now_s
            sequence.num_cached = sequence.num_computed
            self._waiting.charge(sequence, sequence.num_remaining * INPUT_COST)
        return sequence

    def _awaits_prefix(self, sequence: Sequence) -> bool:
        """Whether the first completion of the same request is computing the prompt for both."""
        first = self._by_id.get(sequence.owner_id, sequence)
        is_shared = self._prefixes.num_blocks and first.num_reusable > self._prefixes.block_tokens
        is_computing = first.kv_slot is not None and first.num_computed < first.num_reusable
        return bool(is_shared) and is_computing and first is not sequence

    def _has_room(self, sequence: Sequence) -> bool:
        """Whether it fits, with a block left for each of the others to go on with."""
        needed = self._blocks.num_needed(len(sequence.token_ids))
        return needed + self.num_running <= self._blocks.num_free or not self._running

    def _release(self, sequence: Sequence) -> None:
        assert sequence.kv_slot is not None, sequence.request_id
        self._running = [s for s in self._running if s is not sequence]
        self._blocks.release(sequence.block_table)
        self._free_kv_slots.append(sequence.kv_slot)
        # The lowest slot is taken first: attention reads a view from slot 0 to the highest in use.
        self._free_kv_slots.sort(reverse=True)
        sequence.kv_slot = None


def _chunk(sequence: Sequence, num_tokens: int) -> Chunk:
    return Chunk(sequence, sequence.num_computed, sequence.num_computed + num_tokens)


def _verdict(sequence: Sequence, now_s: float) -> FinishReason | None:
    if sequence.cancelled:
        return FinishReason.CANCELLED
    if sequence.deadline_s is not None and now_s >= sequence.deadline_s:
        return FinishReason.DEADLINE
    return None
