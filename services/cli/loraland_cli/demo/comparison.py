"""Is the adapter better than the base model? Pure: answers and scores in, a verdict out."""

import dataclasses
import statistics
from collections.abc import Sequence

from loraland_models import metrics

from loraland_cli.demo.questions import Question


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one model said, and how long it took."""

    text: str
    ttft_s: float
    total_s: float
    digest: str = ""


@dataclasses.dataclass(frozen=True)
class Pair:
    """One question and both answers, with their scores between 0 and 1."""

    question: Question
    base: Answer
    tuned: Answer
    base_score: float
    tuned_score: float


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric over the whole held-out split, from the job's status."""

    metric: str
    base: float
    tuned: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    is_better: bool
    sentence: str


def pair(metric: str, question: Question, base: Answer, tuned: Answer) -> Pair:
    return Pair(
        question=question,
        base=base,
        tuned=tuned,
        base_score=_score(metric, base, question),
        tuned_score=_score(metric, tuned, question),
    )


def _score(metric: str, answer: Answer, question: Question) -> float:
    return metrics.score(metric, [answer.text], [question.expected])


def judge(pairs: Sequence[Pair], scores: Sequence[Score]) -> Verdict:
    """Compare the answers and the first score; both have to be better with the adapter."""
    base, tuned = mean(pairs, "base"), mean(pairs, "tuned")
    answers = f"{tuned:.2f} with the adapter, {base:.2f} without, on {len(pairs)} questions"
    if tuned <= base:
        return Verdict(
            False, f"the adapter's answers are no better than the base model's: {answers}"
        )
    if not scores:
        return Verdict(False, "the job's status has no scores of base and tuned model")
    first = scores[0]
    split = f"{first.metric} {first.tuned:.2f} with the adapter, {first.base:.2f} without"
    if first.tuned <= first.base:
        return Verdict(False, f"the adapter scores no better on the held-out split: {split}")
    return Verdict(True, f"the adapter is better: {split}; {answers}")


def mean(pairs: Sequence[Pair], side: str) -> float:
    return statistics.fmean(getattr(p, f"{side}_score") for p in pairs)


def median_latency(answers: Sequence[Answer]) -> tuple[float, float]:
    """Return the medians of time to the first token and of the whole answer, in seconds."""
    return (
        statistics.median(answer.ttft_s for answer in answers),
        statistics.median(answer.total_s for answer in answers),
    )
