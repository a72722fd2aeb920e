"""Answers to the held-out prompts, and their scores: by the engine that serves, at its precision.

Greedy and batched, without the adapter or with the files that were written of it, so that a score is
of what a caller will get.
"""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loraland_core.artifacts import Score
from loraland_core.catalogue import BaseModelEntry
from loraland_core.errors import InvalidInput
from loraland_core.resources.finetunejob import EXECUTION, PERPLEXITY, EvaluationSpec
from loraland_engine import offline
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.sequence import SamplingParams
from loraland_models import metrics, weights
from loraland_models.sources import ResolvedModel

from loraland_trainer import execution
from loraland_trainer.examples import Example

log = logging.getLogger(__name__)
MAX_RUNNING = 32
MAX_STEP_TOKENS = 512
# What an uploaded artifact is tried with.
TRIAL_ROWS = 2
TRIAL_TOKENS = 8


def build_engine(
    base_model: ResolvedModel,
    entry: BaseModelEntry,
    tokenizer: Any,
    *,
    context_tokens: int,
    rank: int,
) -> Engine:
    """Load the base model as replicas do, with room for one adapter."""
    config = EngineConfig(
        max_running=MAX_RUNNING,
        max_step_tokens=MAX_STEP_TOKENS,
        context_tokens=context_tokens,
        num_slots=1,
        max_rank=max(rank, entry.limits.max_rank),
        keeps_model=False,
    )
    model = weights.load_model(base_model, weights.serving_precision(entry))
    return Engine(model, tokenizer, config)


class Examination:
    """The held-out rows and who answers them."""

    def __init__(self, engine: Engine, examples: Sequence[Example], spec: EvaluationSpec) -> None:
        self._engine = engine
        self._examples = examples
        self._spec = spec

    def take(self, who: str, adapter: Path | None) -> tuple[list[str], dict[str, float]]:
        """Return answers and scores of the base model, or of an adapter's folder; log them."""
        started = time.monotonic()
        answers = self.answer(adapter)
        scores = {str(n): self._score(n, answers, adapter) for n in self._spec.metrics}
        log.info(
            "%s model on %d held-out rows: %s (%.1f s)",
            who,
            len(self._examples),
            ", ".join(f"{name} {value:.3f}" for name, value in scores.items()),
            time.monotonic() - started,
        )
        return answers, scores

    def answer(self, adapter: Path | None) -> list[str]:
        """Return the most likely answer to each prompt, in the order of the prompts."""
        params = SamplingParams(max_tokens=self._spec.max_new_tokens)
        return self._generate([e.prompt for e in self._examples], params, adapter)

    def try_adapter(self, adapter: Path) -> None:
        """Let an adapter's files answer a few prompts; raise what a replica would refuse them for."""
        params = SamplingParams(max_tokens=TRIAL_TOKENS, ignore_eos=True)
        self._generate([e.prompt for e in self._examples[:TRIAL_ROWS]], params, adapter)

    def _generate(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, adapter: Path | None
    ) -> list[str]:
        # The end of a prompt is what is asked; one token at least is left for the answer.
        kept = [prompt[-(self._engine.context_tokens - 1) :] for prompt in prompts]
        found = offline.generate(self._engine, kept, params, adapter_folder=adapter)
        return [completion.text for completion in found]

    def _score(self, name: str, answers: Sequence[str], adapter: Path | None) -> float:
        if name == PERPLEXITY:
            return self.perplexity(adapter)
        return score_answers(name, answers, self._examples)

    def perplexity(self, adapter: Path | None) -> float:
        """Return e to the mean loss a token of the held-out completions, their end tokens included."""
        room = self._engine.context_tokens - 1
        pairs = []
        for example in self._examples:
            completion = example.completion[: room - 1]
            pairs.append((example.prompt[-(room - len(completion)) :], completion))
        logprobs = offline.score(self._engine, pairs, adapter_folder=adapter)
        num_tokens = sum(len(completion) for _, completion in pairs)
        mean_loss = -sum(logprobs) / num_tokens
        # An overflow would be no number, which a status cannot say.
        return math.exp(min(mean_loss, 700.0))


def score_answers(name: str, answers: Sequence[str], examples: Sequence[Example]) -> float:
    """Return one metric of the answers."""
    if name == EXECUTION:
        return execution.pass_at_1(answers, [example.program for example in examples])
    return metrics.score(name, answers, [example.reference for example in examples])


def check_references(spec: EvaluationSpec, examples: Sequence[Example]) -> None:
    """Raise ``InvalidInput`` for a metric that not even perfect answers could be scored by."""
    check_spec(spec)
    references = [example.reference for example in examples]
    for name in spec.metrics:
        if name == EXECUTION:
            execution.check(references, [example.program for example in examples])
        elif name != PERPLEXITY:
            score_answers(name, references, examples)


def check_spec(spec: EvaluationSpec) -> None:
    """Hold a job that no API server has seen to the rules that one applies."""
    if (EXECUTION in spec.metrics) != (spec.program is not None):
        raise InvalidInput(
            f"{EXECUTION} and evaluation.program need each other: program is what runs an answer and"
            " its tests",
            field="spec.evaluation.program",
        )
    is_perplexity = spec.metrics[0] == PERPLEXITY
    wrong = spec.gate.minimum if is_perplexity else spec.gate.maximum
    if wrong is not None:
        name, other = ("minimum", "maximum") if is_perplexity else ("maximum", "minimum")
        raise InvalidInput(
            f"is {wrong}, and the first metric is {spec.metrics[0]}: use gate.{other}",
            field=f"spec.evaluation.gate.{name}",
        )


def pair_scores(base: dict[str, float], tuned: dict[str, float]) -> list[Score]:
    return [
        Score(name=name, base=round(base[name], 6), tuned=round(value, 6))
        for name, value in tuned.items()
    ]
