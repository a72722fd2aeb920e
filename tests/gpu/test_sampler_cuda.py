"""The sampler on a card: the same rows, seeds and parameters choose what they choose on a CPU."""

from typing import Any

import pytest
import torch
from loraland_engine.grammar import Grammar, GrammarCompiler
from loraland_engine.sampler import sample
from loraland_engine.sequence import SamplingParams, Sequence
from tiny_base import build_tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

PARAMS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.8},
    {"temperature": 1.2, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 30, "min_p": 0.02},
    {"repetition_penalty": 1.4, "frequency_penalty": 0.3, "presence_penalty": 0.2},
    {"temperature": 1.0, "logit_bias": ((3, 5.0), (9, -5.0)), "num_logprobs": 3},
]


def build_rows(constrained: bool) -> list[Sequence]:
    tokenizer = build_tokenizer()
    compiler = GrammarCompiler(
        tokenizer, vocabulary_size=len(tokenizer), eos_token_ids=[tokenizer.eos_token_id]
    )
    form = compiler.compile(Grammar("regex", "[a-z]{40}")) if constrained else None
    return [
        Sequence(
            str(i), [1, 2, 3], SamplingParams(seed=i, **params), 0.0,
            constraint=form.copy() if form and i % 2 else None,
        )
        for i, params in enumerate(PARAMS)
    ]  # fmt: skip


@pytest.mark.parametrize("constrained", [False, True], ids=["free", "constrained"])
def test_a_card_chooses_what_a_cpu_chooses(constrained: bool) -> None:
    """Twenty steps of a mixed batch, token by token, and log-probabilities within 1e-4."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(20, len(PARAMS), len(build_tokenizer()))
    chosen = []
    for device in ("cpu", "cuda"):
        rows = build_rows(constrained)
        steps = []
        for step in logits:
            choices = sample(step.to(device), rows)
            for row, choice in zip(rows, choices, strict=True):
                row.append(choice.token_id)
            steps.append(choices)
        chosen.append(steps)

    for on_cpu, on_card in zip(*chosen, strict=True):
        assert [c.token_id for c in on_cpu] == [c.token_id for c in on_card]
        assert [c.logprob for c in on_card] == pytest.approx([c.logprob for c in on_cpu], abs=1e-4)
