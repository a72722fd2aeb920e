"""Batches: the order of rows, what a batch holds, and what its loss is."""

from collections import Counter
from typing import Any

import pytest
import tiny_models
import torch
from loraland_trainer import batches
from loraland_trainer.examples import Example

PAD = 258
EXAMPLES = [
    Example(prompt=[1, 2, 3], completion=[4, 5], reference=""),
    Example(prompt=[6], completion=[7, 8, 9], reference=""),
    Example(prompt=list(range(10, 20)), completion=[20], reference=""),
    Example(prompt=[21, 22], completion=[23, 24], reference=""),
]


def collate(examples: list[Example]) -> dict[str, Any]:
    items = [
        {"input_ids": [*e.prompt, *e.completion], "completion": e.completion} for e in examples
    ]
    return batches.Collator(PAD)(items)


def test_batches_are_padded_on_the_left() -> None:
    """All completions end in the last column, and labels cover the last columns only."""
    batch = collate(EXAMPLES[:2])

    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [PAD, 6, 7, 8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4], [0, 0, 1, 2, 3]]
    assert batch["labels"].tolist() == [[-100, -100, 4, 5], [-100, 7, 8, 9]]
    assert batch["logits_to_keep"] == 4


def plain_loss(llama: Any, examples: list[Example]) -> float:
    """Return the loss as a loop over single rows without padding gives it."""
    total, count = 0.0, 0
    for example in examples:
        logits = llama(input_ids=torch.tensor([[*example.prompt, *example.completion]])).logits[0]
        predicted = logits[len(example.prompt) - 1 : -1]
        wanted = torch.tensor(example.completion)
        total += float(torch.nn.functional.cross_entropy(predicted, wanted, reduction="sum"))
        count += len(example.completion)
    return total / count


def test_loss_is_the_completions_alone() -> None:
    """Padding, position shifts and dropped columns change nothing: 1e-5 in float32."""
    llama = tiny_models.build_llama()
    batch = collate(EXAMPLES)
    labels = batch.pop("labels")

    with torch.no_grad():
        found = float(batches.completion_loss(llama(**batch), labels))
        expected = plain_loss(llama, EXAMPLES)

    assert pytest.approx(expected, abs=1e-5) == found


def test_loss_of_parts_adds_up_to_the_whole() -> None:
    """With the accumulated count, micro-batches weigh by their tokens."""
    logits = torch.randn(2, 3, 5)
    labels = torch.tensor([[-100, 1, 2], [-100, -100, 3]])

    whole = batches.completion_loss({"logits": logits}, labels)
    parts = [
        batches.completion_loss({"logits": logits[i : i + 1]}, labels[i : i + 1], 3) for i in (0, 1)
    ]

    torch.testing.assert_close(parts[0] + parts[1], whole)


LENGTHS = [5, 9, 3, 7, 30, 2, 8, 1]


def test_order_uses_every_row_before_any_again() -> None:
    """Two and a half passes over eight rows."""
    order = batches.row_order(LENGTHS, batch_size=2, num_batches=10, seed=1)

    counts = Counter(order)
    assert len(order) == 20
    assert set(counts) == set(range(8))
    assert set(counts.values()) <= {2, 3}


def test_order_depends_on_the_seed_alone() -> None:
    """A pod that is started again finds the same order."""
    first, again, other = (
        batches.row_order(LENGTHS, batch_size=2, num_batches=10, seed=seed) for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other


def test_order_of_a_run_begins_with_its_longest_row() -> None:
    """Memory that does not suffice shows in the first step."""
    order = batches.row_order(LENGTHS, batch_size=2, num_batches=4, seed=1)

    assert 4 in order[:2]


def test_order_pads_less_than_chance() -> None:
    """Rows that share a batch are of similar length."""
    lengths = [(n * 7919) % 61 + 5 for n in range(256)]

    order = batches.row_order(lengths, batch_size=8, num_batches=32, seed=0)

    cut = [[lengths[row] for row in order[i : i + 8]] for i in range(0, 256, 8)]
    padded = sum(8 * max(batch) for batch in cut)
    assert padded < 1.1 * sum(lengths)
