"""The quickstart's rows: what the generator writes is what is committed, and held out is held out."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from loraland_core.resources import FineTuneJob
from loraland_models import metrics
from loraland_trainer import dataset, examples

FOLDER = Path(__file__).parents[3] / "examples" / "quickstart"
# kubectl keeps the applied object in an annotation, and annotations are limited to 256 KiB.
MAX_JOB_BYTES = 200 * 1024


@pytest.fixture(scope="module")
def generator() -> Any:
    spec = importlib.util.spec_from_file_location("quickstart_generate", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def job() -> FineTuneJob:
    return FineTuneJob.model_validate(yaml.safe_load((FOLDER / "job.yaml").read_text()))


def fields(row: dict[str, str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(row["answer"])
    return answer


def test_committed_files_are_what_the_generator_writes(generator: Any) -> None:
    """Nobody edits rows by hand; the same seed writes the same bytes."""
    train, evaluation = generator.build_dataset()

    assert generator.lines(train) == (FOLDER / "train.jsonl").read_text()
    assert generator.lines(evaluation) == (FOLDER / "evaluation.jsonl").read_text()
    assert generator.job(train, evaluation) == (FOLDER / "job.yaml").read_text()


def test_job_is_valid_and_small_enough_to_apply(job: FineTuneJob) -> None:
    """The spec parses, its templates fit its rows, and kubectl can carry it."""
    inline = job.spec.dataset.inline
    assert inline is not None
    rows = dataset.parse_jsonl(inline.rows, where="rows")

    examples.check_rows(rows, job.spec.dataset, where="rows")
    assert len(rows) == job.spec.training.max_steps * job.spec.training.batch_size  # type: ignore[operator]
    assert (FOLDER / "job.yaml").stat().st_size < MAX_JOB_BYTES


def test_held_out_rows_cannot_be_copied(generator: Any) -> None:
    """No message, no pair of intent and product, and no phrase of the ask is in both parts."""
    train, evaluation = generator.build_dataset()
    pairs = [
        {(fields(row)["intent"], fields(row)["product"]) for row in rows}
        for rows in (train, evaluation)
    ]
    messages = [{row["message"] for row in rows} for rows in (train, evaluation)]
    asks = generator.phrases.ASKS.values()

    assert not pairs[0] & pairs[1]
    assert not messages[0] & messages[1]
    assert not any(set(seen) & set(held_out) for seen, held_out in asks)
    assert (len(messages[0]), len(messages[1])) == (480, 64)


def test_answers_follow_from_messages(generator: Any) -> None:
    """An order number in the answer stands in the message, and every answer is one line of JSON."""
    for row in [rows for part in generator.build_dataset() for rows in part]:
        order = fields(row)["order"]
        digits = "".join(c for c in row["message"] if c.isdigit())

        assert order is None or order in digits
        assert "\n" not in row["answer"]
        assert metrics.json_field_match(row["answer"], row["answer"]) == 1.0
