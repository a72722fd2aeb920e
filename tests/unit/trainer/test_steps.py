"""Which rows make a step, and how it is cut: by the seed alone, whatever the memory."""

from collections import Counter

import pytest
from loraland_trainer import steps
from loraland_trainer.examples import Example

LENGTHS = [5, 9, 3, 7, 30, 2, 8, 1]


def plan(*, is_packed: bool = True, parts: int = 2, seed: int = 1) -> list[list[int]]:
    return steps.plan(
        LENGTHS, is_packed=is_packed, rows_a_step=4, parts_a_step=parts, num_steps=5, seed=seed
    )


@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "grouped"])
def test_the_rows_of_a_step_do_not_depend_on_its_parts(*, is_packed: bool) -> None:
    """A run that goes on with less memory, or more processes, goes on with the same rows."""
    whole, halves, quarters = (plan(is_packed=is_packed, parts=parts) for parts in (1, 2, 4))

    for step in range(5):
        rows = sorted(whole[step])
        assert sorted(halves[2 * step] + halves[2 * step + 1]) == rows
        assert sorted(row for part in quarters[4 * step : 4 * step + 4] for row in part) == rows


@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "grouped"])
def test_every_row_comes_once_before_any_again(*, is_packed: bool) -> None:
    """Two and a half passes over eight rows."""
    counts = Counter(row for part in plan(is_packed=is_packed) for row in part)

    assert set(counts) == set(range(8))
    assert set(counts.values()) <= {2, 3}


@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "grouped"])
def test_a_run_begins_with_its_longest_row(*, is_packed: bool) -> None:
    """Memory that does not suffice shows in the first step."""
    assert 4 in plan(is_packed=is_packed, parts=1)[0]


def test_the_plan_depends_on_the_seed_alone() -> None:
    """A pod that is started again finds the same steps."""
    assert plan() == plan()
    assert plan() != plan(seed=2)


def test_parts_are_of_a_size() -> None:
    """One long row alone, the others together; no part is empty."""
    parts = steps.cut_evenly([0, 4, 6, 3], LENGTHS, 2)

    assert [sorted(part) for part in parts] == [[4], [0, 3, 6]]


def test_neighbours_in_length_are_padded_together() -> None:
    """The longest two, then the others."""
    assert steps.cut_by_length([0, 4, 6, 3], LENGTHS, 2) == [[4, 6], [3, 0]]


def test_a_micro_step_counts_tokens_without_padding() -> None:
    """What the speed is measured in; and its labels are what Transformers counts."""
    rows = [Example([1, 2, 3], [4, 5], ""), Example([6], [7], "")]
    collator = steps.StepCollator()

    inputs = collator([steps.StepDataset(rows, [[1, 0]])[0]])

    assert collator.num_tokens == 7
    assert inputs["shift_labels"].tolist() == [7, 4, 5]
