"""What a batch holds, in which order rows come, and what the loss of a batch is. Pure.

Two things are done to save work. Rows are padded on the left, so that all completions end in the
last column and the model is asked for the logits of the last columns only: the vocabulary is much of
a small model's arithmetic, and a prompt has no loss. And rows of similar length share a batch.

Shapes: B rows, L columns, K the columns of the longest completion and the one before, V vocabulary.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
# Rows are sorted by length within this many batches: more would make neighbours too much alike.
BATCHES_SORTED_TOGETHER = 8


def row_order(lengths: Sequence[int], *, batch_size: int, num_batches: int, seed: int) -> list[int]:
    """Return the row of every place of every batch, for the whole run.

    Known beforehand, so that a resumed run finds its place by counting. Every row comes once before
    any comes again. The batch with the longest row is the first: memory that does not suffice shows
    at once.
    """
    rng = random.Random(seed)  # noqa: S311 -- no secret
    num_places = batch_size * num_batches
    stream: list[int] = []
    while len(stream) < num_places:
        stream.extend(rng.sample(range(len(lengths)), len(lengths)))
    del stream[num_places:]
    batches: list[list[int]] = []
    places_sorted = batch_size * BATCHES_SORTED_TOGETHER
    for start in range(0, num_places, places_sorted):
        block = sorted(stream[start : start + places_sorted], key=lambda row: lengths[row])
        cut = [block[i : i + batch_size] for i in range(0, len(block), batch_size)]
        rng.shuffle(cut)
        batches.extend(cut)
    longest = max(range(len(batches)), key=lambda b: max(lengths[row] for row in batches[b]))
    batches.insert(0, batches.pop(longest))
    return [row for batch in batches for row in batch]


class Collator:
    """Pads rows on the left; counts the tokens that are not padding."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id
        self.num_tokens = 0

    def __call__(self, items: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        num_columns = max(len(item["input_ids"]) for item in items)
        num_kept = min(max(len(item["completion"]) for item in items) + 1, num_columns)
        input_ids_BL = torch.full((len(items), num_columns), self._pad_token_id)
        attention_mask_BL = torch.zeros_like(input_ids_BL)
        labels_BK = torch.full((len(items), num_kept), IGNORED)
        for row, item in enumerate(items):
            ids, completion = item["input_ids"], item["completion"]
            input_ids_BL[row, -len(ids) :] = torch.tensor(ids)
            attention_mask_BL[row, -len(ids) :] = 1
            labels_BK[row, -len(completion) :] = torch.tensor(completion)
            self.num_tokens += len(ids)
        return {
            "input_ids": input_ids_BL,
            "attention_mask": attention_mask_BL,
            "position_ids": (attention_mask_BL.cumsum(-1) - 1).clamp(min=0),
            "labels": labels_BK,
            "logits_to_keep": num_kept,
        }


def completion_loss(
    outputs: Any, labels_BK: Tensor, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Return the cross entropy a completion token, over the whole accumulated batch.

    Only columns with a label reach the softmax, in float32.
    """
    predicted_BKV = outputs["logits"][:, :-1]
    wanted_BK = labels_BK[:, 1:].to(predicted_BKV.device)
    has_label_BK = wanted_BK != IGNORED
    total = torch.nn.functional.cross_entropy(
        predicted_BKV[has_label_BK].float(), wanted_BK[has_label_BK], reduction="sum"
    )
    count = has_label_BK.sum() if num_items_in_batch is None else num_items_in_batch
    return total / count
