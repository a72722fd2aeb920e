"""Chooses the next token of each row. No I/O.

A row's result depends on its own logits and its own generator alone: each row draws one uniform
number a token and inverts its cumulative distribution with it, and how many candidates are looked
at is decided row by row.

Shapes: R rows, V vocabulary, C candidates in descending order.
"""

from collections import defaultdict
from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from loraland_engine import adjustments
from loraland_engine.sequence import SamplingParams, Sequence, TokenLogprob

# Looked at when the probabilities decide how many tokens stay; a flatter row looks at all of them.
_CANDIDATES = 256
# Half of a float32's bits tell it from others by less than one percent.
_BIN_BITS = 16
# Below about this the division overflows; such a row is greedy for every purpose.
_MIN_TEMPERATURE = 1e-4


def sample(logits_RV: Tensor, sequences: Rows[Sequence]) -> list[TokenLogprob]:
    """Return each row's token; log-probabilities where they were asked for, 0 elsewhere.

    They are the model's own: before bias, penalties, temperature and filters.
    """
    with torch.inference_mode():
        adjusted_RV = adjustments.adjust(logits_RV, sequences)
        tokens: list[int] = adjusted_RV.argmax(dim=-1).tolist()
        drawn = [i for i, s in enumerate(sequences) if s.params.temperature > 0]
        if drawn:
            chosen = _draw(adjusted_RV[drawn].float(), [sequences[i] for i in drawn])
            for i, token in zip(drawn, chosen, strict=True):
                tokens[i] = token
        return _with_logprobs(logits_RV, sequences, tokens)


def _draw(logits_RV: Tensor, sequences: list[Sequence]) -> list[int]:
    params = [s.params for s in sequences]
    uniform_R = torch.tensor([s.generator.random() for s in sequences], device=logits_RV.device)
    temperature_R = torch.tensor([p.temperature for p in params], device=logits_RV.device)
    scaled_RV = logits_RV / temperature_R.clamp_min(_MIN_TEMPERATURE)[:, None]
    size = logits_RV.shape[1]
    tokens = [0] * len(sequences)
    groups: dict[int, list[int]] = defaultdict(list)
    for row, p in enumerate(params):
        groups[_num_candidates(p, size)].append(row)
    for count, rows in groups.items():
        subset_RV = scaled_RV if len(rows) == len(params) else scaled_RV[rows]
        if count == 0:
            found: list[int | None] = list(_draw_from_all(subset_RV, uniform_R[rows]))
        else:
            found = _draw_filtered(subset_RV, uniform_R[rows], [params[r] for r in rows], count)
        for row, token in zip(rows, found, strict=True):
            if token is None:
                token = _draw_flat(scaled_RV[row], uniform_R[row], params[row])  # noqa: PLW2901
            tokens[row] = token
    return tokens


def _num_candidates(params: SamplingParams, size: int) -> int:
    """Return how many of the largest logits to look at first; 0 if no filter is set."""
    if params.top_k:
        # Powers of two, so that rows of about the same top_k share a call.
        return min(size, 1 << (params.top_k - 1).bit_length())
    if params.top_p < 1 or params.min_p > 0:
        return min(size, _CANDIDATES)
    return 0


def _draw_from_all(scaled_RV: Tensor, uniform_R: Tensor) -> list[int]:
    cumulative_RV = scaled_RV.softmax(dim=-1).cumsum(dim=-1)
    return [int(i) for i in _invert(cumulative_RV, cumulative_RV[:, -1], uniform_R).tolist()]


def _draw_filtered(
    scaled_RV: Tensor, uniform_R: Tensor, params: list[SamplingParams], count: int
) -> list[int | None]:
    """Return a token a row; None where ``count`` candidates do not show where the filters cut.

    Each filter keeps a beginning of the descending order, so together they keep the shortest.
    top_p is a share of what top_k leaves; a token stays while the mass before it is below.
    """
    device, size = scaled_RV.device, scaled_RV.shape[1]
    largest_RC, token_RC = scaled_RV.topk(count, dim=-1)
    p_RC = (largest_RC - scaled_RV.logsumexp(dim=-1, keepdim=True)).exp()
    cumulative_RC = p_RC.cumsum(dim=-1)
    top_k_R1 = torch.tensor([[min(p.top_k or count, count)] for p in params], device=device)
    mass_R1 = cumulative_RC.gather(1, top_k_R1 - 1)
    mass_R1[torch.tensor([p.top_k == 0 for p in params], device=device)] = 1.0
    share_R1 = torch.tensor([[p.top_p if p.top_p < 1 else torch.inf] for p in params]).to(device)
    min_p_R1 = torch.tensor([[p.min_p] for p in params], device=device)
    keep_RC = torch.arange(count, device=device) < top_k_R1
    keep_RC &= cumulative_RC - p_RC < share_R1 * mass_R1
    keep_RC &= p_RC >= min_p_R1 * p_RC[:, :1]
    kept_R1 = keep_RC.sum(dim=-1, keepdim=True).clamp_min(1)
    index_R1 = _invert(cumulative_RC, cumulative_RC.gather(1, kept_R1 - 1)[:, 0], uniform_R)
    chosen = token_RC.gather(1, index_R1[:, None])[:, 0].tolist()
    is_open = [
        kept == count < size and not p.top_k
        for kept, p in zip(kept_R1[:, 0].tolist(), params, strict=True)
    ]
    return [None if more else int(t) for t, more in zip(chosen, is_open, strict=True)]


def _draw_flat(scaled_V: Tensor, uniform: Tensor, params: SamplingParams) -> int:
    """Return the token of a row whose cut lies beyond the candidates.

    The same as by sorting the whole vocabulary, but sorted are only the tokens about the cut:
    positive floats are in the order of their bits, so a histogram over half of them finds it.
    """
    p_V = scaled_V.softmax(dim=-1)
    share = params.top_p if params.top_p < 1 else torch.inf
    bin_V = (p_V.view(torch.int32) >> _BIN_BITS).long()
    masses = torch.zeros(int(bin_V.max()) + 2, device=p_V.device).scatter_add_(0, bin_V, p_V)
    above = masses.flip(0).cumsum(0).flip(0)
    reaching = (above >= share).nonzero()
    keep_V = p_V >= params.min_p * p_V.max()
    if len(reaching):
        cut = int(reaching[-1])
        inside = (bin_V == cut).nonzero()[:, 0]
        inside = inside[p_V[inside].argsort(descending=True, stable=True)]
        before = above[cut + 1] + p_V[inside].cumsum(0) - p_V[inside]
        stays_V = bin_V > cut
        stays_V[inside[before < share]] = True
        keep_V &= stays_V
    cumulative_RV = p_V.where(keep_V, 0.0).cumsum(0)[None]
    return int(_invert(cumulative_RV, cumulative_RV[:, -1], uniform[None]))


def _invert(cumulative_RC: Tensor, total_R: Tensor, uniform_R: Tensor) -> Tensor:
    """Return the first index at which the cumulative distribution exceeds ``uniform * total``."""
    # Rounding must not reach the total: no index would exceed it.
    below_R = torch.nextafter(total_R, torch.zeros_like(total_R))
    target_R = torch.minimum(uniform_R * total_R, below_R)
    return torch.searchsorted(cumulative_RC, target_R[:, None], right=True)[:, 0]


def _with_logprobs(
    logits_RV: Tensor, sequences: Rows[Sequence], tokens: list[int]
) -> list[TokenLogprob]:
    choices = [TokenLogprob(token) for token in tokens]
    wanted = [i for i, s in enumerate(sequences) if s.params.num_logprobs is not None]
    if not wanted:
        return choices
    logprobs_RV = logits_RV[wanted].float().log_softmax(dim=-1)
    token_R1 = torch.tensor([[tokens[i]] for i in wanted], device=logits_RV.device)
    chosen = logprobs_RV.gather(1, token_R1)[:, 0].tolist()
    most = max(sequences[i].params.num_logprobs or 0 for i in wanted)
    values, token_ids = (part.tolist() for part in logprobs_RV.topk(most, dim=-1))
    for row, i in enumerate(wanted):
        count = sequences[i].params.num_logprobs or 0
        top = tuple(zip(token_ids[row][:count], values[row][:count], strict=True))
        choices[i] = TokenLogprob(tokens[i], chosen[row], top)
    return choices
