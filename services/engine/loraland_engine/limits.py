"""How much may wait: a request beyond it is refused when it comes, not when it fails. No I/O."""

from dataclasses import dataclass

from loraland_core.errors import Unavailable

RETRY_AFTER_S = 1.0


class EngineFull(Unavailable):
    """The engine has as much waiting as it takes; come back later."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_s=RETRY_AFTER_S)


@dataclass(frozen=True)
class Limits:
    """Bounds on what waits. None is no bound, for callers that bring their own."""

    max_waiting: int | None = None
    # Of inputs and of the longest possible answers.
    max_waiting_tokens: int | None = None

    def check(self, *, num_sequences: int, num_tokens: int) -> None:
        """Raise ``EngineFull`` where that much would wait and is too much."""
        if self.max_waiting is not None and num_sequences > self.max_waiting:
            raise EngineFull(
                f"{num_sequences} completions would wait, more than the limit of"
                f" {self.max_waiting}; come back later"
            )
        if self.max_waiting_tokens is not None and num_tokens > self.max_waiting_tokens:
            raise EngineFull(
                f"what waits could come to {num_tokens} tokens of KV memory, more than the limit"
                f" of {self.max_waiting_tokens}; come back later, or ask for fewer tokens"
            )


NO_LIMITS = Limits()
