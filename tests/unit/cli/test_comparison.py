"""The comparison's verdict."""

import pytest
from loraland_cli.demo import comparison
from loraland_cli.demo.comparison import Answer, Score
from loraland_cli.demo.questions import Question

RIGHT, HALF, WRONG = '{"a": 1, "b": 2}', '{"a": 1}', "I do not know"
QUESTION = Question(fields={"m": "x"}, prompt="x\n", expected=RIGHT)


def answer(text: str) -> Answer:
    return Answer(text=text, ttft_s=0.1, total_s=1.0)


def pair(base: str, tuned: str) -> comparison.Pair:
    return comparison.pair("JsonFieldMatch", QUESTION, answer(base), answer(tuned))


GOOD = [Score("JsonFieldMatch", base=0.1, tuned=0.8)]
EVEN = [Score("JsonFieldMatch", base=0.5, tuned=0.5)]


@pytest.mark.parametrize(
    ("pairs", "scores", "expected", "words"),
    [
        pytest.param([pair(WRONG, RIGHT)], GOOD, True, "the adapter is better", id="better"),
        pytest.param([pair(HALF, HALF)], GOOD, False, "no better than", id="same-answers"),
        pytest.param([pair(RIGHT, HALF)], GOOD, False, "no better than", id="worse-answers"),
        pytest.param([pair(WRONG, RIGHT)], EVEN, False, "held-out split", id="same-scores"),
        pytest.param([pair(WRONG, RIGHT)], [], False, "has no scores", id="no-scores"),
    ],
)
def test_judge_wants_better_answers_and_better_scores(
    pairs: list[comparison.Pair], scores: list[Score], expected: bool, words: str
) -> None:
    """Only an adapter that wins both ways passes; anything else says which way it lost."""
    verdict = comparison.judge(pairs, scores)

    assert (verdict.is_better, words in verdict.sentence) == (expected, True)


def test_pair_scores_each_answer_by_the_jobs_metric() -> None:
    """Half of the fields right is half a point."""
    scored = pair(WRONG, HALF)

    assert (scored.base_score, scored.tuned_score) == (0.0, 0.5)


def test_median_latency_is_taken_per_measure() -> None:
    """Times to the first token and to the end are separate medians."""
    answers = [Answer("", 0.1, 3.0), Answer("", 0.3, 1.0), Answer("", 0.2, 2.0)]

    assert comparison.median_latency(answers) == (0.2, 2.0)
