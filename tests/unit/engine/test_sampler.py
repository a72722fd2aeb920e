"""The choice of tokens: greedy rows, filters, log-probabilities, seeds independent of the batch."""

import random
from typing import Any

import pytest
import torch
from loraland_engine.sampler import sample
from loraland_engine.sequence import SamplingParams, Sequence

LOGITS = torch.tensor([0.0, 3.0, 1.0, 2.0, -1.0])


def build_sequence(**params: Any) -> Sequence:
    return Sequence("r", [1], SamplingParams(**params), 0.0)


def draw(logits: torch.Tensor, count: int, **params: Any) -> list[int]:
    sequence = build_sequence(**params)
    return [sample(logits[None], [sequence])[0].token_id for _ in range(count)]


def allowed(logits: torch.Tensor, params: SamplingParams) -> set[int]:
    """Return what the filters leave, by their definitions and one token after the other."""
    p = (logits.double() / params.temperature).softmax(0)
    order = p.argsort(descending=True, stable=True).tolist()[: params.top_k or None]
    mass = sum(float(p[i]) for i in order)
    left, before = set(), 0.0
    for rank, i in enumerate(order):
        is_inside = before < params.top_p * mass and p[i] >= params.min_p * p[order[0]]
        if rank == 0 or is_inside:
            left.add(i)
        before += float(p[i])
    return left


def test_sample_takes_the_largest_logit_when_temperature_is_zero() -> None:
    """Greedy is the argmax."""
    assert sample(LOGITS[None], [build_sequence()])[0].token_id == 1


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"top_k": 2}, {1, 3}),
        ({"top_p": 0.5}, {1}),
        ({"top_p": 0.8}, {1, 3}),
        ({"top_k": 3, "top_p": 1.0}, {1, 2, 3}),
        ({"top_k": 2, "top_p": 0.9}, {1, 3}),
        ({"min_p": 0.3}, {1, 3}),
        ({"min_p": 0.1, "top_k": 2}, {1, 3}),
        ({"min_p": 1.0}, {1}),
        ({"temperature": 1e-6}, {1}),
        ({"temperature": 100.0}, {0, 1, 2, 3, 4}),
        ({"logit_bias": ((1, -100.0),), "top_k": 1}, {3}),
        ({"logit_bias": ((4, 100.0),)}, {4}),
    ],
    ids=[
        "top-k", "top-p-one", "top-p-two", "top-k-three", "top-p-of-top-k", "min-p",
        "min-p-and-top-k", "min-p-one", "cold", "hot", "bias-down", "bias-up",
    ],
)  # fmt: skip
def test_sample_draws_only_what_the_filters_leave(
    params: dict[str, Any], expected: set[int]
) -> None:
    """Two hundred draws hit exactly the tokens that the filters leave."""
    found = set(draw(LOGITS, 200, **{"temperature": 1.0, "seed": 7} | params))

    assert found == expected


@pytest.mark.parametrize("seed", range(12))
def test_filters_agree_with_their_definitions_in_a_large_vocabulary(seed: int) -> None:
    """Peaked and flat rows, in one batch, draw only what the definitions leave."""
    chance = random.Random(seed)  # noqa: S311 (a test, no secrecy)
    torch.manual_seed(seed)
    logits = torch.randn(6, 3000) * torch.tensor([[0.01], [0.3], [1.0], [2.0], [4.0], [8.0]])
    rows = [
        build_sequence(
            temperature=chance.choice([0.5, 1.0, 1.7]),
            top_k=chance.choice([0, 0, 1, 40, 700, 3000]),
            top_p=chance.choice([1.0, 0.5, 0.95]),
            min_p=chance.choice([0.0, 0.05]),
            seed=seed,
        )
        for _ in logits
    ]
    expected = [allowed(row, s.params) for row, s in zip(logits, rows, strict=True)]

    found = [[c.token_id for c in sample(logits, rows)] for _ in range(20)]

    assert [i for draws in found for i, t in enumerate(draws) if t not in expected[i]] == []


@pytest.mark.parametrize(
    "params", [{"top_p": 0.6}, {"min_p": 0.97}, {"top_p": 0.9, "min_p": 0.9}],
    ids=["top-p", "min-p", "both"],
)  # fmt: skip
def test_flat_rows_draw_every_token_that_stays_and_no_other(params: dict[str, Any]) -> None:
    """Where hundreds of tokens stay, the cut is found without sorting, at the same token."""
    torch.manual_seed(1)
    logits = 0.05 * torch.randn(500)
    rows = [build_sequence(temperature=1.0, seed=i, **params) for i in range(200)]
    expected = allowed(logits, rows[0].params)

    found = {c.token_id for _ in range(30) for c in sample(logits.expand(200, -1), rows)}

    assert found == expected


@pytest.mark.parametrize(
    "params", [{}, {"top_k": 5}, {"top_p": 0.9999999}, {"min_p": 1e-9}],
    ids=["all", "top-k", "top-p", "min-p"],
)  # fmt: skip
def test_sample_follows_the_distribution(params: dict[str, Any]) -> None:
    """Frequencies approach the softmax, whichever way the candidates are found."""
    drawn = torch.tensor(draw(LOGITS, 4000, temperature=1.0, seed=3, **params))

    frequencies = torch.bincount(drawn, minlength=5) / 4000
    torch.testing.assert_close(frequencies, LOGITS.softmax(0), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"top_p": 0.9},
        {"top_k": 7, "min_p": 0.01},
        {"repetition_penalty": 1.3, "presence_penalty": 0.5},
        {"logit_bias": ((3, 2.0),), "num_logprobs": 2},
    ],
    ids=["plain", "top-p", "top-k", "penalties", "bias"],
)
def test_sample_gives_the_same_tokens_whatever_else_is_in_the_batch(
    params: dict[str, Any],
) -> None:
    """A seeded row draws alike alone and among others, at any place."""
    torch.manual_seed(0)
    logits = torch.randn(6, 2000)
    params = {"temperature": 0.9, "seed": 11} | params
    others = [
        build_sequence(temperature=1.0),
        build_sequence(),
        build_sequence(temperature=0.7, top_k=900),
        build_sequence(temperature=9.0, top_p=0.99),
        build_sequence(repetition_penalty=2.0),
    ]

    alone = draw(logits[2], 5, **params)
    found = []
    for place in range(3):
        rows = [*others[:place], build_sequence(**params), *others[place:]]
        batch = torch.cat([logits[:2][:place], logits[2:3], logits[3:], logits[:2]])[:6]
        found.append([sample(batch, rows)[place].token_id for _ in range(5)])

    assert found == [alone] * 3


def test_sequences_of_one_request_draw_differently() -> None:
    """Each of n completions has a generator of its own, fixed by the seed and its index."""
    params = SamplingParams(temperature=1.0, seed=5)
    draws = [
        [Sequence("r", [1], params, 0.0, index=i).generator.random() for i in (0, 1, 2)]
        for _ in range(2)
    ]

    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 3


@pytest.mark.parametrize("count", [0, 1, 3])
def test_logprobs_are_the_models_own(count: int) -> None:
    """Neither temperature nor filters nor bias change them; the likeliest come first."""
    sequence = build_sequence(num_logprobs=count, temperature=0.5, top_k=1, logit_bias=((2, 50.0),))
    expected = LOGITS.log_softmax(0)

    (choice,) = sample(LOGITS[None], [sequence])

    assert choice.token_id == 2
    assert choice.logprob == pytest.approx(float(expected[2]), abs=1e-6)
    assert [i for i, _ in choice.top] == [1, 3, 2][:count]
    assert [v for _, v in choice.top] == pytest.approx(expected[[1, 3, 2][:count]].tolist())


def test_sample_leaves_the_logits_as_they_are() -> None:
    """What one request asks to change is changed in a copy."""
    logits = LOGITS.clone()[None]

    sample(logits, [build_sequence(logit_bias=((0, 9.0),), repetition_penalty=2.0)])

    assert torch.equal(logits[0], LOGITS)
