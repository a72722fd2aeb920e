"""Rows end to end in one sequence: what stands where, and who may look at whom. No I/O, no model.

A micro-step's rows lie in one row of T tokens without padding. What all of their prompts begin with
(an instruction, a system message) stands there once: every row attends to it, and its gradient is the
sum of theirs, as it would be were it repeated. A row never attends to another.

Shapes: T packed tokens, P of the common beginning, N after it, K with a label; of attention's groups, B
rows, S tokens of the longest, M places in all, L = P + S.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

# A beginning shorter than this is not worth an attention of its own.
LEAST_SHARED_TOKENS = 8
# In a group, no row is shorter than this share of the longest: attention alone is padded.
LEAST_FILL = 0.7
PADDING = -1


@dataclass(frozen=True)
class Group:
    """Rows of similar length, which attend in one call, padded there to the longest."""

    num_rows: int
    num_tokens: int
    # True where a row's token may look: the common beginning, then itself and what precedes it.
    mask_SL: Tensor | None


@dataclass(frozen=True)
class Layout:
    """Where each packed token belongs. Own tokens are those after the common beginning."""

    num_shared: int
    groups: tuple[Group, ...]
    # For each place of all groups' rows, one after another: which own token stands there.
    # Padding repeats the last own token; causality keeps it from every real one.
    token_M: Tensor
    # For each own token: its place.
    place_N: Tensor
    # The places that are padding.
    padding: Tensor

    def to(self, device: Any, *, non_blocking: bool = False) -> "Layout":
        """Return the layout on another device; Accelerate calls it as it does for tensors."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        groups = tuple(
            replace(g, mask_SL=None if g.mask_SL is None else moved(g.mask_SL)) for g in self.groups
        )
        return Layout(
            self.num_shared,
            groups,
            token_M=moved(self.token_M),
            place_N=moved(self.place_N),
            padding=moved(self.padding),
        )


@dataclass(frozen=True)
class TokenRow:
    """A row's tokens; the last ``num_labels`` of them are learned."""

    tokens: list[int]
    num_labels: int


def pack(rows: Sequence[TokenRow], *, share_prefix: bool) -> dict[str, Any]:
    """Return the inputs of one micro-step: tokens, positions, layout, and what is to be predicted."""
    num_shared = shared_length(rows) if share_prefix else 0
    tokens = list(rows[0].tokens[:num_shared])
    positions = list(range(num_shared))
    predictor: list[int] = []
    labels: list[int] = []
    for row in rows:
        own = row.tokens[num_shared:]
        end = len(tokens) + len(own)
        tokens.extend(own)
        positions.extend(range(num_shared, len(row.tokens)))
        predictor.extend(range(end - row.num_labels - 1, end - 1))
        labels.extend(row.tokens[-row.num_labels :])
    return {
        "input_ids": torch.tensor([tokens]),
        "position_ids": torch.tensor([positions]),
        "predictor_K": torch.tensor(predictor),
        "shift_labels": torch.tensor(labels),
        "layout": build_layout([len(row.tokens) - num_shared for row in rows], num_shared),
    }


def shared_length(rows: Sequence[TokenRow]) -> int:
    """Return how many tokens all rows begin with; each keeps one prompt token of its own."""
    if len(rows) < 2:
        return 0
    most = min(len(row.tokens) - row.num_labels - 1 for row in rows)
    first, last = (list(end(row.tokens for row in rows)) for end in (min, max))
    # In sorted order, what the first and the last share is shared by all between.
    length = next((i for i in range(most) if first[i] != last[i]), max(most, 0))
    return length if length >= LEAST_SHARED_TOKENS else 0


def build_layout(own_lengths: Sequence[int], num_shared: int) -> Layout:
    """Return the layout of rows with so many tokens of their own after the shared ones."""
    starts = list(accumulate(own_lengths, initial=0))
    by_length = sorted(range(len(own_lengths)), key=lambda row: -own_lengths[row])
    groups: list[Group] = []
    rows_tokens: list[Tensor] = []
    while by_length:
        longest = own_lengths[by_length[0]]
        members = [row for row in by_length if own_lengths[row] >= LEAST_FILL * longest]
        del by_length[: len(members)]
        for row in members:
            tokens_S = torch.full((longest,), PADDING)
            tokens_S[: own_lengths[row]] = torch.arange(starts[row], starts[row + 1])
            rows_tokens.append(tokens_S)
        groups.append(Group(len(members), longest, _causal_mask(longest, num_shared)))
    token_M = torch.cat(rows_tokens)
    padding = (token_M == PADDING).nonzero().squeeze(1)
    real = (token_M != PADDING).nonzero().squeeze(1)
    place_N = real[token_M[real].argsort()]
    return Layout(
        num_shared, tuple(groups), token_M.masked_fill(token_M == PADDING, starts[-1] - 1),
        place_N=place_N, padding=padding,
    )  # fmt: skip


def _causal_mask(num_own: int, num_shared: int) -> Tensor | None:
    """Return [S, P + S]; None where causality alone says the same."""
    if num_shared == 0:
        return None
    return torch.ones(num_own, num_shared + num_own, dtype=torch.bool).tril(num_shared)
