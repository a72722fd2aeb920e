"""Scores of answers against references. Pure; every score lies between 0 and 1, higher is better.

Names are those of ``evaluation.metrics``. LoRA Land (arXiv 2405.00732) reports accuracy with lenient
parsing, ROUGE-L's F-measure, and for stsb 1 - |error| / 5, here generalised to any range.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from loraland_core.errors import InvalidInput
from rouge_score.rouge_scorer import RougeScorer

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
RESULT_MARK = "####"
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_YES = frozenset({"yes", "true", "1", "positive"})
_NO = frozenset({"no", "false", "0", "negative"})


def score(metric: str, predictions: Sequence[str], references: Sequence[str]) -> float:
    """Return the mean score over all rows."""
    assert len(predictions) == len(references), (len(predictions), len(references))
    if not references:
        raise InvalidInput("no held-out rows to score", field="evaluation", reason="EmptyDataset")
    if metric == "MAE":
        return mean_absolute_error(predictions, references)
    row_score = _ROW_SCORES.get(metric)
    if row_score is None:
        known = ", ".join([*_ROW_SCORES, "MAE"])
        raise InvalidInput(f"no metric {metric!r}; known: {known}", field="evaluation.metrics")
    return sum(map(row_score, predictions, references)) / len(references)


def exact_match(prediction: str, reference: str) -> float:
    """Return 1 where both are the same text, white space around it aside."""
    return float(prediction.strip() == reference.strip())


def json_field_match(prediction: str, reference: str) -> float:
    """Return the share of the reference's fields that the answer's first JSON object has right.

    A reference that is not a JSON object counts as one field, compared as JSON.
    """
    try:
        wanted = json.loads(reference)
    except ValueError as error:
        raise InvalidInput(
            f"a row expects {reference!r}, which is no JSON; JsonFieldMatch needs JSON",
            field="evaluation.metrics",
        ) from error
    found = first_json(prediction)
    if not isinstance(wanted, dict) or not wanted:
        return float(found == wanted)
    if not isinstance(found, dict):
        return 0.0
    right = sum(1 for name, value in wanted.items() if _same_json(found.get(name, _ABSENT), value))
    return right / len(wanted)


_ABSENT = object()


def _same_json(found: Any, wanted: Any) -> bool:
    # In Python True == 1; in JSON it is not.
    if isinstance(found, bool) != isinstance(wanted, bool):
        return False
    return bool(found == wanted)


def first_json(text: str) -> Any:
    """Return the first JSON value that starts at a brace or bracket, or None."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"[{\[]", text):
        try:
            return decoder.raw_decode(text, match.start())[0]
        except (ValueError, RecursionError):
            continue
    return None


def accuracy(prediction: str, reference: str) -> float:
    """Return 1 where the answer starts with the label, whatever follows.

    Case and punctuation are ignored, and yes/true/1/positive are one answer, as are their opposites.
    Where the label is a calculation that ends in ``#### 72``, as GSM8K writes it, the answer's result
    has to be this one: what follows its own ``####``, or else its last number.
    """
    if RESULT_MARK in reference:
        return float(_result(prediction) == _result(reference) is not None)
    answer, label = normalized(prediction).split(), normalized(reference).split()
    if answer[: len(label)] == label:
        return 1.0
    if len(label) == 1 and answer:
        return float(any(answer[0] in group and label[0] in group for group in (_YES, _NO)))
    return 0.0


def _result(text: str) -> float | None:
    """Return the number that a calculation ends in, thousands written with commas or without."""
    after = text.rpartition(RESULT_MARK)[2] if RESULT_MARK in text else text
    numbers = _NUMBER.findall(re.sub(r"(?<=\d),(?=\d)", "", after))
    if not numbers:
        return None
    return float(numbers[0] if RESULT_MARK in text else numbers[-1])


def f1(prediction: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall over words, as SQuAD does."""
    answer = _ARTICLES.sub(" ", normalized(prediction)).split()
    wanted = _ARTICLES.sub(" ", normalized(reference)).split()
    if not answer or not wanted:
        return float(answer == wanted)
    common = sum((Counter(answer) & Counter(wanted)).values())
    return 2 * common / (len(answer) + len(wanted))


def rouge_l(prediction: str, reference: str) -> float:
    """Return the F-measure of the longest common subsequence of words, unstemmed."""
    return float(_rouge_scorer().score(reference, prediction)["rougeL"].fmeasure)


def mean_absolute_error(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Return 1 - mean(|error|) / range of the references; an answer without a number scores 0."""
    wanted = [_number(reference) for reference in references]
    for row, (number, reference) in enumerate(zip(wanted, references, strict=True), start=1):
        if number is None:
            raise InvalidInput(
                f"row {row} expects {reference!r}, which is no number; MAE needs numbers",
                field="evaluation.metrics",
            )
    numbers = [number for number in wanted if number is not None]
    span = (max(numbers) - min(numbers)) or 1.0
    total = 0.0
    for prediction, number in zip(predictions, numbers, strict=True):
        guess = _number(prediction)
        total += 0.0 if guess is None else max(0.0, 1 - abs(guess - number) / span)
    return total / len(numbers)


def normalized(text: str) -> str:
    """Return the text in lower case, punctuation as white space."""
    table = str.maketrans(dict.fromkeys(string.punctuation, " "))
    return " ".join(text.lower().translate(table).split())


def _number(text: str) -> float | None:
    match = _NUMBER.search(text)
    return float(match.group()) if match else None


@cache
def _rouge_scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=False)


_ROW_SCORES: dict[str, Callable[[str, str], float]] = {
    "ExactMatch": exact_match,
    "JsonFieldMatch": json_field_match,
    "Accuracy": accuracy,
    "F1": f1,
    "RougeL": rouge_l,
}
