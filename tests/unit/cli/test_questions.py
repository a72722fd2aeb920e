"""The held-out questions of a job."""

from typing import Any

import pytest
from loraland_cli.demo import questions
from loraland_core.errors import InvalidInput

JOB: dict[str, Any] = {
    "metadata": {"name": "support"},
    "spec": {
        "dataset": {
            "prompt": "{message}\n",
            "completion": "{answer}",
            "inline": {
                "rows": "{}",
                "evaluationRows": '{"message": "a", "answer": "1"}\n\n{"message": 2, "answer": "2"}\n',
            },
        }
    },
}


def test_read_renders_prompt_and_answer_from_the_rows() -> None:
    """Columns are given for the adapter's own template, the prompt written out for the base model."""
    found = questions.read(JOB)

    assert found == [
        questions.Question(fields={"message": "a"}, prompt="a\n", expected="1"),
        questions.Question(fields={"message": "2"}, prompt="2\n", expected="2"),
    ]


def test_read_takes_no_more_than_asked_for() -> None:
    """Eight questions fit on a screen; the whole split was scored by the trainer."""
    assert len(questions.read(JOB, num_questions=1)) == 1


def test_read_says_what_a_job_without_inline_rows_lacks() -> None:
    """A job on other data cannot be asked from its resource."""
    job = {"metadata": {"name": "hub"}, "spec": {"dataset": {"prompt": "{x}", "completion": "{y}"}}}
    with pytest.raises(InvalidInput, match="has no inline evaluationRows"):
        questions.read(job)
