"""Which tokens a sequence has seen, for the penalties. No torch, no I/O.

Kept from step to step as arrays, so that a step costs one token's work and not the whole sequence's.
"""

from collections.abc import Sequence as Tokens

import numpy as np
from numpy.typing import NDArray


class TokenHistory:
    """A sequence's different tokens, and how often its output has each: 0 where only the prompt."""

    def __init__(self, prompt_token_ids: Tokens[int]) -> None:
        different = list(dict.fromkeys(prompt_token_ids))
        self._place = {token_id: place for place, token_id in enumerate(different)}
        self._token_ids = np.array(different, dtype=np.int64)
        self._counts = np.zeros(len(different), dtype=np.float32)

    @property
    def token_ids(self) -> NDArray[np.int64]:
        return self._token_ids[: len(self._place)]

    @property
    def counts(self) -> NDArray[np.float32]:
        return self._counts[: len(self._place)]

    def add(self, token_id: int) -> None:
        """Count a token of the output."""
        place = self._place.get(token_id)
        if place is None:
            place = self._append(token_id)
        self._counts[place] += 1.0

    def _append(self, token_id: int) -> int:
        place = len(self._place)
        if place == len(self._token_ids):
            # Room to grow: what is beyond the places in use is never read.
            self._token_ids = np.resize(self._token_ids, 2 * place + 8)
            self._counts = np.resize(self._counts, 2 * place + 8)
        self._place[token_id] = place
        self._token_ids[place] = token_id
        self._counts[place] = 0.0
        return place
