"""Bias, penalties and masks, each by its formula."""

from typing import Any

import pytest
import torch
from loraland_engine.adjustments import adjust
from loraland_engine.sequence import Constraint, SamplingParams, Sequence

LOGITS = [2.0, -1.0, 0.5, 3.0]


class Allowing:
    """A constraint that allows the same tokens for ever."""

    error = ""
    is_complete = False

    def __init__(self, bits: int) -> None:
        self._bits = bits

    def copy(self) -> Constraint:
        return self

    def mask(self) -> bytes:
        return bytes([self._bits])

    def accept(self, token_id: int) -> None:
        del token_id


def adjusted(prompt: list[int], output: list[int], **params: Any) -> list[float]:
    constraint = params.pop("constraint", None)
    sequence = Sequence("r", prompt, SamplingParams(**params), 0.0, constraint=constraint)
    for token_id in output:
        sequence.append(token_id)
    result: list[float] = adjust(torch.tensor([LOGITS]), [sequence])[0].tolist()
    return result


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [2.0, -1.0, 0.5, 3.0]),
        ({"repetition_penalty": 2.0}, [1.0, -2.0, 0.25, 3.0]),
        ({"presence_penalty": 0.5}, [2.0, -1.5, 0.0, 3.0]),
        ({"frequency_penalty": 0.5}, [2.0, -2.0, 0.0, 3.0]),
        ({"presence_penalty": -1.0, "frequency_penalty": 1.0}, [2.0, -2.0, 0.5, 3.0]),
        ({"logit_bias": ((3, -1.5), (0, 1.0))}, [3.0, -1.0, 0.5, 1.5]),
        ({"logit_bias": ((2, 1.5),), "repetition_penalty": 2.0}, [1.0, -2.0, 1.0, 3.0]),
        ({"constraint": Allowing(0b1010)}, [-torch.inf, -1.0, -torch.inf, 3.0]),
        (
            {"constraint": Allowing(0b0010), "logit_bias": ((1, 4.0),)},
            [-torch.inf, 3.0, -torch.inf, -torch.inf],
        ),
    ],
    ids=[
        "none", "repetition", "presence", "frequency", "both", "bias", "bias-first", "mask",
        "mask-last",
    ],
)  # fmt: skip
def test_adjust_follows_the_formula(params: dict[str, Any], expected: list[float]) -> None:
    """The prompt has token 0, the output token 1 twice and token 2 once."""
    assert adjusted([0], [1, 1, 2], **params) == pytest.approx(expected)


def test_adjust_changes_each_row_by_its_own_parameters() -> None:
    """Rows with and without changes share a batch."""
    rows = [
        Sequence("a", [0], SamplingParams(repetition_penalty=2.0), 0.0),
        Sequence("b", [0], SamplingParams(), 0.0),
        Sequence("c", [3], SamplingParams(), 0.0, constraint=Allowing(0b0001)),
        Sequence("d", [3], SamplingParams(repetition_penalty=3.0), 0.0),
    ]

    found = adjust(torch.tensor([LOGITS] * 4), rows).tolist()

    none = -torch.inf
    assert found == [
        [1.0, -1.0, 0.5, 3.0],
        LOGITS,
        [2.0, none, none, none],
        [2.0, -1.0, 0.5, 1.0],
    ]


def test_mask_forbids_what_the_tokenizer_does_not_have() -> None:
    """A vocabulary padded beyond the mask has no tokens there."""
    sequence = Sequence("r", [0], SamplingParams(), 0.0, constraint=Allowing(0b11111111))

    found = adjust(torch.zeros(1, 12), [sequence])[0]

    assert found.isinf().tolist() == [False] * 8 + [True] * 4
