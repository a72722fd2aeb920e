"""Which rows make which optimizer step, and how a step is cut into micro-steps. Pure.

Which rows a step holds depends on the seed alone: neither on the memory nor on the number of processes,
so that a run that goes on elsewhere goes on with the rows it would have seen.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from loraland_trainer.batches import row_order
from loraland_trainer.examples import Example
from loraland_trainer.packing import TokenRow


@dataclass(frozen=True)
class MicroStep:
    """The rows of one forward and backward pass."""

    rows: tuple[TokenRow, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of the rows, each counted whole; no padding."""
        return sum(len(row.tokens) for row in self.rows)


def packed_steps(num_rows: int, *, rows_a_step: int, num_steps: int, seed: int) -> list[list[int]]:
    """Return the rows of each step, shuffled; every row comes once before any comes again."""
    rng = random.Random(seed)  # noqa: S311 -- no secret
    stream: list[int] = []
    while len(stream) < rows_a_step * num_steps:
        stream.extend(rng.sample(range(num_rows), num_rows))
    return [stream[i * rows_a_step : (i + 1) * rows_a_step] for i in range(num_steps)]


def grouped_steps(
    lengths: Sequence[int], *, rows_a_step: int, num_steps: int, seed: int
) -> list[list[int]]:
    """Return the rows of each step, those of similar length together."""
    order = row_order(lengths, batch_size=rows_a_step, num_batches=num_steps, seed=seed)
    return [order[i * rows_a_step : (i + 1) * rows_a_step] for i in range(num_steps)]


def longest_first(steps: list[list[int]], lengths: Sequence[int]) -> list[list[int]]:
    """Return the steps with the largest first: memory that does not suffice shows at once."""
    if not steps:
        return steps
    largest = max(range(len(steps)), key=lambda i: sum(lengths[row] for row in steps[i]))
    return [steps[largest], *steps[:largest], *steps[largest + 1 :]]


def plan(
    lengths: Sequence[int],
    *,
    is_packed: bool,
    rows_a_step: int,
    parts_a_step: int,
    num_steps: int,
    seed: int,
) -> list[list[int]]:
    """Return the rows of every micro-step of the run, step after step."""
    if is_packed:
        steps = packed_steps(len(lengths), rows_a_step=rows_a_step, num_steps=num_steps, seed=seed)
        steps, cut = longest_first(steps, lengths), cut_evenly
    else:
        steps = grouped_steps(lengths, rows_a_step=rows_a_step, num_steps=num_steps, seed=seed)
        cut = cut_by_length
    return [part for step in steps for part in cut(step, lengths, parts_a_step)]


def cut_evenly(rows: Sequence[int], lengths: Sequence[int], num_parts: int) -> list[list[int]]:
    """Return the rows in so many parts, none empty, of about as many tokens each."""
    assert num_parts <= len(rows), (num_parts, len(rows))
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    totals = [0] * num_parts
    for row in sorted(rows, key=lambda row: -lengths[row]):
        # An empty part is always the least.
        least = min(range(num_parts), key=lambda part: (totals[part], part))
        parts[least].append(row)
        totals[least] += lengths[row]
    return parts


def cut_by_length(rows: Sequence[int], lengths: Sequence[int], num_parts: int) -> list[list[int]]:
    """Return the rows in so many parts of neighbours in length: what is padded is padded less."""
    ordered = sorted(rows, key=lambda row: -lengths[row])
    return [
        ordered[len(rows) * part // num_parts : len(rows) * (part + 1) // num_parts]
        for part in range(num_parts)
    ]


def token_row(example: Example) -> TokenRow:
    return TokenRow([*example.prompt, *example.completion], len(example.completion))


class StepDataset(Dataset[MicroStep]):
    """The micro-steps of a whole run, step after step, in each the processes' shares in turn."""

    def __init__(self, examples: Sequence[Example], parts: Sequence[Sequence[int]]) -> None:
        self._examples = examples
        self._parts = parts

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, place: int) -> MicroStep:
        return MicroStep(tuple(token_row(self._examples[row]) for row in self._parts[place]))


class StepCollator:
    """Hands a micro-step on as it is, with the labels that Transformers counts."""

    def __init__(self) -> None:
        self.num_tokens = 0

    def __call__(self, items: Sequence[MicroStep]) -> dict[str, Any]:
        [step] = items
        self.num_tokens += step.num_tokens
        labels = torch.tensor([token for r in step.rows for token in r.tokens[-r.num_labels :]])
        # By the first name Transformers finds them, by the second it counts all of them.
        return {"micro_step": step, "labels": labels, "shift_labels": labels}
