"""Chooses the next token of each row. No I/O.

A row's result depends on its own logits and its own generator alone: each row draws one uniform
number a token and inverts its cumulative distribution with it.

Shapes: R rows, V vocabulary.
"""

from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from loraland_engine.sequence import Sequence


def sample(logits_RV: Tensor, sequences: Rows[Sequence]) -> list[int]:
    """Return one token id for each row."""
    tokens = logits_RV.argmax(dim=-1).tolist()
    drawn = [i for i, s in enumerate(sequences) if s.params.temperature > 0]
    if drawn:
        chosen = _draw(logits_RV[drawn].float(), [sequences[i] for i in drawn])
        for i, token in zip(drawn, chosen, strict=True):
            tokens[i] = token
    return [int(token) for token in tokens]


def _draw(logits_RV: Tensor, sequences: list[Sequence]) -> list[int]:
    device = logits_RV.device
    params = [s.params for s in sequences]
    temperature = torch.tensor([[p.temperature] for p in params], device=device)
    # Below about 1e-4 the division overflows; such a row is greedy for every purpose.
    scaled = logits_RV / temperature.clamp_min(1e-4)
    ordered, token_ids = scaled.sort(dim=-1, descending=True, stable=True)
    size = ordered.shape[-1]
    top_k = torch.tensor([[p.top_k or size] for p in params], device=device)
    ordered = ordered.masked_fill(torch.arange(size, device=device)[None, :] >= top_k, -torch.inf)
    probabilities = ordered.softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1)
    top_p = torch.tensor([[p.top_p] for p in params], device=device)
    # A token stays while the mass before it is under top_p: the first one always does.
    probabilities = probabilities.masked_fill(cumulative - probabilities >= top_p, 0.0)
    probabilities[:, 0].clamp_min_(torch.finfo(probabilities.dtype).tiny)
    cumulative = probabilities.cumsum(dim=-1)
    uniform = torch.tensor([[s.generator.random()] for s in sequences], device=device)
    index = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    # Rounding may point one past the last token that has any mass.
    last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
    index = torch.minimum(index, last)
    return [int(token) for token in token_ids.gather(1, index)[:, 0].tolist()]
