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
    """How much may wait before others are turned away. None is no bound: the caller has its own.

    A request counts once it waits, so that a large one is not refused by an idle engine.
    """

    max_waiting: int | None = None
    # Of inputs and of the longest possible answers, in multiples of KV memory.
    max_waiting_kv: float | None = None

    def check(self, *, num_waiting: int, num_tokens: int, num_kv_tokens: int) -> None:
        """Raise ``EngineFull`` where so many completions, which may come to so many tokens, wait."""
        if self.max_waiting is not None and num_waiting >= self.max_waiting:
            raise EngineFull(
                f"{num_waiting} completions wait, and no more than {self.max_waiting} may;"
                " come back later"
            )
        if self.max_waiting_kv is not None and num_tokens >= self.max_waiting_kv * num_kv_tokens:
            raise EngineFull(
                f"what waits may come to {num_tokens} tokens, {num_tokens / num_kv_tokens:.1f} times"
                f" what KV memory holds, and no more than {self.max_waiting_kv:g} times may;"
                " come back later"
            )


NO_LIMITS = Limits()
