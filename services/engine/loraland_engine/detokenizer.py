"""Turns tokens into text as they come. No torch, no I/O.

Two things are held back: bytes that do not yet make a whole character, and text that may turn out
to be the beginning of a stop string.
"""

from collections.abc import Sequence as Tokens
from typing import Protocol

_INCOMPLETE = "\ufffd"
# Enough to know whether the first output token begins with a space of its own.
_CONTEXT_TOKENS = 6
# A character has at most four bytes; more tokens than this that end in no character are no text.
_MAX_PENDING = 8


class Decoder(Protocol):
    """The one method of a tokenizer that is used here."""

    def decode(
        self,
        token_ids: list[int],
        *,
        skip_special_tokens: bool,
        clean_up_tokenization_spaces: bool,
    ) -> str: ...


class Detokenizer:
    """One request's output text."""

    def __init__(
        self, decoder: Decoder, prompt_token_ids: Tokens[int], stop: tuple[str, ...]
    ) -> None:
        self._decoder = decoder
        self._stop = stop
        self._held = ""
        self._ids = list(prompt_token_ids[-_CONTEXT_TOKENS:])
        if self._decode(self._ids).endswith(_INCOMPLETE):
            self._ids = []
        self._prefix_start = 0
        self._read_end = len(self._ids)

    def add(self, token_id: int) -> tuple[str, bool]:
        """Return the text that is now safe to send, and whether a stop string has appeared."""
        self._ids.append(token_id)
        self._held += self._new_text()
        return self._release()

    def flush(self) -> str:
        """Return what was held back; the request has ended without a stop string."""
        rest = self._held + self._new_text(incomplete=True)
        self._held = ""
        return rest

    def _new_text(self, *, incomplete: bool = False) -> str:
        before = self._decode(self._ids[self._prefix_start : self._read_end])
        after = self._decode(self._ids[self._prefix_start :])
        end = len(self._ids)
        if after.endswith(_INCOMPLETE) and not incomplete:
            end = self._boundary(after)
            if end == self._read_end:
                return ""
            after = self._decode(self._ids[self._prefix_start : end])
        self._prefix_start = self._read_end
        self._read_end = end
        return after[len(before) :]

    def _boundary(self, text: str) -> int:
        """Return up to which token the pending ones are decided, whatever bytes follow.

        Without it, a model that writes bytes at random would be decoded from the first on each time.
        """
        if len(self._ids) - self._read_end < _MAX_PENDING:
            return self._read_end
        for end in range(len(self._ids) - 1, self._read_end, -1):
            first = self._decode(self._ids[self._prefix_start : end])
            if first + self._decode(self._ids[end:]) == text:
                return end
        return self._read_end

    def _release(self) -> tuple[str, bool]:
        found = [i for s in self._stop if (i := self._held.find(s)) >= 0]
        if found:
            text, self._held = self._held[: min(found)], ""
            return text, True
        keep = max((_overlap(self._held, s) for s in self._stop), default=0)
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text, False

    def _decode(self, token_ids: list[int]) -> str:
        return self._decoder.decode(
            token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


def _overlap(text: str, stop: str) -> int:
    """Return how long an end of ``text`` is that ``stop`` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
