"""Which tokens of which sequences run in the next step. No torch, no I/O; time is passed in.

Every step decodes all sequences whose prompt is done and fills what is left of the token budget with
pieces of prompts, so that a long prompt delays others by at most one step. Whoever arrived first is
admitted first; a sequence is admitted when a KV slot is free, and each slot holds a whole context.
"""

from collections import deque
from dataclasses import dataclass

from loraland_engine.sequence import FinishReason, Sequence


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
    """Waiting and running sequences, and the KV slots that bound how many run."""

    def __init__(self, *, max_running: int, max_step_tokens: int) -> None:
        assert max_step_tokens >= max_running, (max_step_tokens, max_running)
        self._max_step_tokens = max_step_tokens
        self._free_kv_slots = list(range(max_running - 1, -1, -1))
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._by_id: dict[str, Sequence] = {}

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_free_kv_slots(self) -> int:
        return len(self._free_kv_slots)

    def has_work(self) -> bool:
        return bool(self._by_id)

    def uses_adapter(self, adapter_slot: int) -> bool:
        return any(s.adapter_slot == adapter_slot for s in self._by_id.values())

    def add(self, sequence: Sequence) -> None:
        assert sequence.request_id not in self._by_id, sequence.request_id
        self._by_id[sequence.request_id] = sequence
        self._waiting.append(sequence)

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
        chunks = [
            Chunk(s, s.num_computed, s.num_computed + 1)
            for s in self._running
            if s.num_remaining == 1
        ]
        budget = self._max_step_tokens - len(chunks)
        partial = [s for s in self._running if s.num_remaining > 1]
        while budget > 0 and (sequence := partial.pop(0) if partial else self._admit(now_s)):
            num_tokens = min(budget, sequence.num_remaining)
            chunks.append(
                Chunk(sequence, sequence.num_computed, sequence.num_computed + num_tokens)
            )
            budget -= num_tokens
        return chunks

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence and free its KV slot."""
        del self._by_id[sequence.request_id]
        if sequence.kv_slot is None:
            self._waiting.remove(sequence)
            return
        self._running.remove(sequence)
        self._free_kv_slots.append(sequence.kv_slot)
        # The lowest slot is taken first: attention reads a view from slot 0 to the highest in use.
        self._free_kv_slots.sort(reverse=True)
        sequence.kv_slot = None

    def _admit(self, now_s: float) -> Sequence | None:
        if not self._waiting or not self._free_kv_slots:
            return None
        sequence = self._waiting.popleft()
        sequence.kv_slot = self._free_kv_slots.pop()
        sequence.admitted_s = now_s
        self._running.append(sequence)
        return sequence


def _verdict(sequence: Sequence, now_s: float) -> FinishReason | None:
    if sequence.cancelled:
        return FinishReason.CANCELLED
    if sequence.deadline_s is not None and now_s >= sequence.deadline_s:
        return FinishReason.DEADLINE
    return None
