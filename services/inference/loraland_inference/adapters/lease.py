"""The right of a request to use an adapter in the engine. No I/O."""

from collections.abc import Callable
from dataclasses import dataclass

from loraland_core.prompts import PromptTemplate

from loraland_inference.adapters.slots import Slot


@dataclass(frozen=True)
class Lease:
    """``release`` exactly once. The base model has no digest and no tier."""

    digest: str = ""
    prompt: PromptTemplate | None = None
    load_s: float = 0.0
    # The nearest place where the artifact was when the request came.
    tier: str = ""
    priority: int = 0
    # Tells how many of the tokens that it was acquired for are done.
    spend: Callable[[int], None] = lambda _: None
    release: Callable[[], None] = lambda: None


class Work:
    """What one request may still have to do on a slot."""

    def __init__(self, slot: Slot, num_tokens: int) -> None:
        self._slot = slot
        self._num_tokens = num_tokens
        slot.num_due_tokens += num_tokens

    def spend(self, num_tokens: int) -> None:
        spent = min(num_tokens, self._num_tokens)
        self._num_tokens -= spent
        self._slot.num_due_tokens -= spent

    def end(self) -> None:
        self.spend(self._num_tokens)
