"""Each metric by example, and what is refused."""

import pytest
from loraland_core.errors import InvalidInput
from loraland_models import metrics

JSON = '{"intent":"refund","order":null,"count":1}'


@pytest.mark.parametrize(
    ("metric", "prediction", "reference", "expected"),
    [
        pytest.param("ExactMatch", " yes\n", "yes", 1.0, id="exact-white-space-aside"),
        pytest.param("ExactMatch", "Yes", "yes", 0.0, id="exact-case-counts"),
        pytest.param("JsonFieldMatch", JSON, JSON, 1.0, id="json-all"),
        pytest.param(
            "JsonFieldMatch", '{"intent":"refund"}', JSON, 1 / 3, id="json-missing-fields-are-wrong"
        ),
        pytest.param(
            "JsonFieldMatch", 'Sure: {"order":null} bye', JSON, 1 / 3, id="json-text-around-it"
        ),
        pytest.param("JsonFieldMatch", '{"count":true}', JSON, 0.0, id="json-true-is-not-one"),
        pytest.param("JsonFieldMatch", '{"count":"1"}', JSON, 0.0, id="json-text-is-not-a-number"),
        pytest.param("JsonFieldMatch", '{"intent":"refund"', JSON, 0.0, id="json-unfinished"),
        pytest.param("JsonFieldMatch", "[1, 2]", "[1, 2]", 1.0, id="json-list-counts-as-one"),
        pytest.param("JsonFieldMatch", "no JSON", "[1, 2]", 0.0, id="json-list-missed"),
        pytest.param("Accuracy", "Yes, it is.", "yes", 1.0, id="accuracy-first-word"),
        pytest.param("Accuracy", "true", "1", 1.0, id="accuracy-yes-words-are-one"),
        pytest.param("Accuracy", "negative", "positive", 0.0, id="accuracy-opposite"),
        pytest.param("Accuracy", "not yes", "yes", 0.0, id="accuracy-must-come-first"),
        pytest.param("Accuracy", "card arrival", "card_arrival", 1.0, id="accuracy-punctuation"),
        pytest.param("Accuracy", "", "yes", 0.0, id="accuracy-nothing"),
        pytest.param("Accuracy", "2 * 36\n#### 72", "#### 72", 1.0, id="accuracy-result"),
        pytest.param("Accuracy", "It is 1,072.00 dollars", "#### 1072", 1.0, id="accuracy-last"),
        pytest.param("Accuracy", "#### 72 of 80", "so\n#### 72", 1.0, id="accuracy-after-mark"),
        pytest.param("Accuracy", "72, no, 71", "#### 72", 0.0, id="accuracy-other-result"),
        pytest.param("Accuracy", "I do not know", "#### 72", 0.0, id="accuracy-no-number"),
        pytest.param("F1", "the red car", "a red car", 1.0, id="f1-articles-aside"),
        pytest.param("F1", "red bike", "red car", 0.5, id="f1-half"),
        pytest.param("F1", "", "car", 0.0, id="f1-nothing"),
        pytest.param("RougeL", "the cat sat", "the cat sat", 1.0, id="rouge-same"),
        pytest.param("RougeL", "the cat", "the cat sat down", 2 / 3, id="rouge-half-recalled"),
        pytest.param("RougeL", "dog", "cat", 0.0, id="rouge-nothing"),
    ],
)
def test_score_of_one_row(metric: str, prediction: str, reference: str, expected: float) -> None:
    """A row's score is what the metric's definition says."""
    score = metrics.score(metric, [prediction], [reference])

    assert pytest.approx(expected) == score


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        pytest.param(["5", "0"], ["5", "0"], 1.0, id="right"),
        pytest.param(["about 4.5", "0"], ["5.0", "0"], 0.95, id="a-tenth-off-in-one"),
        pytest.param(["many", "0"], ["5", "0"], 0.5, id="no-number-scores-nothing"),
        pytest.param(["900", "0"], ["5", "0"], 0.5, id="far-off-is-not-below-zero"),
        pytest.param(["3"], ["3"], 1.0, id="one-row-has-no-range"),
    ],
)
def test_mean_absolute_error_is_higher_for_better(
    predictions: list[str], references: list[str], expected: float
) -> None:
    """The error is taken relative to the range of the references and from one."""
    score = metrics.score("MAE", predictions, references)

    assert pytest.approx(expected) == score


def test_score_is_the_mean_over_rows() -> None:
    """Two rows, one right."""
    score = metrics.score("ExactMatch", ["a", "b"], ["a", "c"])

    assert score == 0.5


@pytest.mark.parametrize(
    ("metric", "references", "part"),
    [
        pytest.param("Bleu", ["a"], "no metric 'Bleu'; known: ExactMatch", id="unknown"),
        pytest.param("MAE", ["a"], "row 1 expects 'a'", id="reference-without-a-number"),
        pytest.param("JsonFieldMatch", ["{'a'}"], "which is no JSON", id="reference-not-json"),
        pytest.param("F1", [], "no held-out rows", id="no-rows"),
    ],
)
def test_score_refuses(metric: str, references: list[str], part: str) -> None:
    """What cannot be scored is said in words."""
    with pytest.raises(InvalidInput) as caught:
        metrics.score(metric, references, references)

    assert part in str(caught.value)
