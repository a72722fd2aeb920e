"""Answers to the held-out prompts, and their scores. Greedy, batched, with or without the adapter."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import torch
from loraland_core.artifacts import Score
from loraland_core.resources.finetunejob import EvaluationSpec
from loraland_models import metrics

from loraland_trainer.examples import Example

log = logging.getLogger(__name__)
BATCH_ROWS = 64


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_rows: int = BATCH_ROWS,
) -> list[str]:
    """Return the most likely answer to each prompt, in the order of the prompts."""
    model.eval()
    # Prompts of similar length share a batch: less padding.
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: dict[int, str] = {}
    for start in range(0, len(by_length), batch_rows):
        batch = by_length[start : start + batch_rows]
        answers.update(
            zip(
                batch,
                _generate_batch(model, tokenizer, [prompts[i] for i in batch], max_new_tokens),
                strict=True,
            )
        )
    return [answers[index] for index in range(len(prompts))]


def _generate_batch(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int
) -> list[str]:
    num_columns = max(map(len, prompts))
    input_ids = torch.full((len(prompts), num_columns), tokenizer.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, num_columns - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, num_columns - len(prompt) :] = 1
    with torch.inference_mode():
        output = model.generate(
            input_ids=input_ids.to(model.device),
            attention_mask=attention_mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    return [
        str(text)
        for text in tokenizer.batch_decode(output[:, num_columns:], skip_special_tokens=True)
    ]


def score_answers(
    spec: EvaluationSpec, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, float]:
    """Return every metric that the job names, in its order."""
    references = [example.reference for example in examples]
    return {name: metrics.score(name, answers, references) for name in spec.metrics}


def answer_all(
    who: str, model: Any, tokenizer: Any, examples: Sequence[Example], spec: EvaluationSpec
) -> tuple[list[str], dict[str, float]]:
    """Let the model answer every held-out prompt; return answers and scores, and log them."""
    started = time.monotonic()
    answers = generate(
        model,
        tokenizer,
        [example.prompt for example in examples],
        max_new_tokens=spec.max_new_tokens,
    )
    scores = score_answers(spec, answers, examples)
    log.info(
        "%s model on %d held-out rows: %s (%.1f s)",
        who,
        len(examples),
        ", ".join(f"{name} {value:.3f}" for name, value in scores.items()),
        time.monotonic() - started,
    )
    return answers, scores


def pair_scores(base: dict[str, float], tuned: dict[str, float]) -> list[Score]:
    return [
        Score(name=name, base=round(base[name], 6), tuned=round(value, 6))
        for name, value in tuned.items()
    ]
