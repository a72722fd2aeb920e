"""The choice of tokens: greedy rows, filters, and seeds that do not depend on the batch."""

import pytest
import torch
from loraland_engine.sampler import sample
from loraland_engine.sequence import SamplingParams, Sequence


def build_sequence(**params: object) -> Sequence:
    return Sequence("r", [1], SamplingParams(**params), 0.0)  # type: ignore[arg-type]


def draw(logits: torch.Tensor, count: int, **params: object) -> list[int]:
    sequence = build_sequence(**params)
    return [sample(logits[None], [sequence])[0].token_id for _ in range(count)]


LOGITS = torch.tensor([0.0, 3.0, 1.0, 2.0, -1.0])


def test_sample_takes_the_largest_logit_when_temperature_is_zero() -> None:
    """Greedy is the argmax."""
    assert sample(LOGITS[None], [build_sequence()])[0].token_id == 1


@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        ({"top_k": 2}, {1, 3}),
        ({"top_p": 0.5}, {1}),
        ({"top_p": 0.8}, {1, 3}),
        ({"top_k": 3, "top_p": 1.0}, {1, 2, 3}),
        ({"temperature": 1e-6}, {1}),
        ({"temperature": 100.0}, {0, 1, 2, 3, 4}),
    ],
    ids=["top-k", "top-p-one", "top-p-two", "top-k-three", "cold", "hot"],
)
def test_sample_draws_only_what_the_filters_leave(
    params: dict[str, object], allowed: set[int]
) -> None:
    """Two hundred draws hit exactly the tokens that top-k and top-p leave."""
    found = set(draw(LOGITS, 200, **{"temperature": 1.0, "seed": 7} | params))

    assert found == allowed


def test_sample_follows_the_distribution() -> None:
    """Frequencies approach the softmax."""
    drawn = torch.tensor(draw(LOGITS, 4000, temperature=1.0, seed=3))

    frequencies = torch.bincount(drawn, minlength=5) / 4000
    torch.testing.assert_close(frequencies, LOGITS.softmax(0), atol=0.03, rtol=0)


def test_sample_gives_the_same_tokens_whatever_else_is_in_the_batch() -> None:
    """A seeded row draws alike alone and among others."""
    torch.manual_seed(0)
    logits = torch.randn(4, 50)
    params = {"temperature": 0.9, "top_p": 0.9, "seed": 11}

    alone = draw(logits[2], 5, **params)
    rows = [build_sequence(temperature=1.0), build_sequence(), build_sequence(**params)]
    mixed = [sample(logits[:3], rows)[2].token_id for _ in range(5)]

    assert alone == mixed
