"""The held-out questions of a job, written as the job's template writes them. Pure, no I/O."""

import dataclasses
import json
from typing import Any

from loraland_core import prompts
from loraland_core.errors import InvalidInput

NUM_QUESTIONS = 8


@dataclasses.dataclass(frozen=True)
class Question:
    """One held-out row: its columns, the prompt they give, and the answer that is right."""

    fields: dict[str, str]
    prompt: str
    expected: str


def read(job: dict[str, Any], *, num_questions: int = NUM_QUESTIONS) -> list[Question]:
    """Return the first held-out rows of a FineTuneJob that holds its rows inline."""
    dataset = job["spec"]["dataset"]
    text = (dataset.get("inline") or {}).get("evaluationRows")
    template, completion = dataset.get("prompt"), dataset.get("completion")
    if not text or not template or not completion:
        raise InvalidInput(
            "has no inline evaluationRows with prompt and completion templates to ask from",
            field=f"FineTuneJob {job['metadata']['name']}: spec.dataset",
        )
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [_question(row, template, completion) for row in rows[:num_questions]]


def _question(row: dict[str, Any], template: str, completion: str) -> Question:
    columns = prompts.placeholders(template)
    return Question(
        fields={name: _text(row.get(name)) for name in columns},
        prompt=prompts.render(template, row),
        expected=prompts.render(completion, row),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
