"""Which tokens a sequence has seen, for the penalties. No torch, no I/O."""

from collections.abc import Sequence as Tokens


class TokenHistory:
    """Counts of a sequence's tokens: 0 for one that only the prompt has.

    Kept from step to step, so that a step costs one token's work and not the whole sequence's.
    """

    def __init__(self, prompt_token_ids: Tokens[int]) -> None:
        self.counts: dict[int, int] = dict.fromkeys(prompt_token_ids, 0)

    def add(self, token_id: int) -> None:
        self.counts[token_id] = self.counts.get(token_id, 0) + 1
