"""Held-out prompts are answered in order, whatever the batches, and scored."""

from typing import Any

import pytest
import tiny_base
import torch
from loraland_core.resources.finetunejob import EvaluationSpec
from loraland_trainer import evaluate
from loraland_trainer.examples import Example
from transformers import AutoModelForCausalLM

TOKENIZER: Any = tiny_base.build_tokenizer()
PROMPTS = [TOKENIZER.encode(text) for text in ("a longer prompt", "b", "some more", "cc")]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny_base.write_base_model(tmp_path_factory.mktemp("base"))
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_answers_do_not_depend_on_the_batches(llama: Any) -> None:
    """One at a time or three at once: the same answers in the order of the prompts."""
    single = evaluate.generate(llama, TOKENIZER, PROMPTS, max_new_tokens=5, batch_rows=1)
    batched = evaluate.generate(llama, TOKENIZER, PROMPTS, max_new_tokens=5, batch_rows=3)

    assert single == batched
    assert len(single) == len(PROMPTS)


def test_scores_come_in_the_jobs_order() -> None:
    """The gate looks at the first, so the order is part of the result."""
    spec = EvaluationSpec(metrics=["RougeL", "ExactMatch"])
    held_out = [Example(prompt=[], completion=[], reference=text) for text in ("a b", "c")]

    scores = evaluate.score_answers(spec, ["a b", "d"], held_out)

    assert list(scores.items()) == [("RougeL", 0.5), ("ExactMatch", 0.5)]


def test_scores_of_base_and_tuned_are_paired() -> None:
    """One line a metric."""
    [score] = evaluate.pair_scores({"F1": 0.1}, {"F1": 0.9})

    assert (score.name, score.base, score.tuned) == ("F1", 0.1, 0.9)
