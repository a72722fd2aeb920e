"""What a request asks to change in its logits before a token is chosen. No I/O.

In this order: bias, penalties, and the mask of what a grammar allows. All rows of a step at once.

Shapes: R rows, V vocabulary, E entries of the rows' histories.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Rows
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraland_engine.sequence import Sequence


def adjust(logits_RV: Tensor, sequences: Rows[Sequence]) -> Tensor:
    """Return float32 logits as the rows' parameters change them; the input stays as it is."""
    if not any(s.params.has_adjustments or s.constraint for s in sequences):
        return logits_RV
    adjusted_RV = logits_RV.to(torch.float32, copy=True)
    _add_bias(adjusted_RV, sequences)
    _penalize(adjusted_RV, sequences)
    _mask(adjusted_RV, sequences)
    return adjusted_RV


def _add_bias(logits_RV: Tensor, sequences: Rows[Sequence]) -> None:
    entries = [(row, *e) for row, s in enumerate(sequences) for e in s.params.logit_bias]
    if entries:
        rows, token_ids, values = zip(*entries, strict=True)
        device = logits_RV.device
        index = (torch.tensor(rows, device=device), torch.tensor(token_ids, device=device))
        logits_RV.index_put_(index, torch.tensor(values, device=device), accumulate=True)


def _penalize(logits_RV: Tensor, sequences: Rows[Sequence]) -> None:
    """Lower what was seen before.

    The repetition penalty divides a positive logit and multiplies a negative one, for tokens of
    prompt and output (Keskar et al. 2019, arXiv:1909.05858). The other two are subtracted, once
    for each token of the output and once for each time that it came.
    """
    penalized = [(row, s) for row, s in enumerate(sequences) if s.history]
    if not penalized:
        return
    histories = [s.history for _, s in penalized if s.history]
    sizes = [len(history.token_ids) for history in histories]
    device = logits_RV.device

    def spread(values: Iterable[float], dtype: Any) -> Tensor:
        """Return each row's value once for each of its entries."""
        return torch.from_numpy(np.repeat(np.array(list(values), dtype), sizes)).to(device)

    row_E = spread((row for row, _ in penalized), np.int64)
    token_E = torch.from_numpy(np.concatenate([h.token_ids for h in histories])).to(device)
    count_E = torch.from_numpy(np.concatenate([h.counts for h in histories])).to(device)
    params = [s.params for _, s in penalized]
    repetition_E = spread((p.repetition_penalty for p in params), np.float32)
    presence_E = spread((p.presence_penalty for p in params), np.float32)
    frequency_E = spread((p.frequency_penalty for p in params), np.float32)
    value_E = logits_RV[row_E, token_E]
    value_E = torch.where(value_E > 0, value_E / repetition_E, value_E * repetition_E)
    value_E -= presence_E * (count_E > 0) + frequency_E * count_E
    logits_RV[row_E, token_E] = value_E


def _mask(logits_RV: Tensor, sequences: Rows[Sequence]) -> None:
    masks = [(row, mask) for row, s in enumerate(sequences) if (mask := _build_mask(s))]
    if not masks:
        return
    rows = [row for row, _ in masks]
    size = logits_RV.shape[1]
    bits = np.frombuffer(b"".join(mask for _, mask in masks), dtype=np.uint8)
    bits = np.unpackbits(bits.reshape(len(rows), -1), axis=1, bitorder="little")
    # A model's vocabulary may be padded beyond its tokenizer's, and a mask to whole words.
    forbidden = np.ones((len(rows), size), dtype=bool)
    forbidden[:, : bits.shape[1]] = bits[:, :size] == 0
    forbidden_RV = torch.from_numpy(forbidden).to(logits_RV.device)
    logits_RV[rows] = logits_RV[rows].masked_fill(forbidden_RV, -torch.inf)


def _build_mask(sequence: Sequence) -> bytes | None:
    """Return what a row's form allows; one that raises marks its sequence, and no other."""
    if sequence.constraint is None:
        return None
    try:
        return sequence.constraint.mask()
    except Exception as error:
        sequence.failure = error
        return None
