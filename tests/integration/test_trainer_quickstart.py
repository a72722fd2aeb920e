"""The quickstart's rows stay within the budget that makes the demo quick, in the model's own tokens."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from loraland_core.resources import FineTuneJob
from loraland_models import sources
from loraland_trainer import dataset, examples
from transformers import AutoTokenizer

JOB = Path(__file__).parents[2] / "examples" / "quickstart" / "job.yaml"
MAX_ROW_TOKENS = 80
MAX_ANSWER_TOKENS = 48


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The embedded model's tokenizer, from the very file that the weights come from."""
    package, file = sources.EMBEDDED["smollm2-135m-instruct"]
    pytest.importorskip(package, reason="the embedded base model is not installed")
    gguf = sources.embedded_file("smollm2-135m-instruct")
    return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=file)


def test_rows_are_within_the_budget(tokenizer: Any) -> None:
    """At most 80 tokens a row, 48 of them the answer, none cut."""
    spec = FineTuneJob.model_validate(yaml.safe_load(JOB.read_text())).spec
    inline = spec.dataset.inline
    assert inline is not None

    built = [
        example
        for text in (inline.rows, inline.evaluation_rows or "")
        for example in examples.build_examples(
            dataset.parse_jsonl(text, where="rows"), spec.dataset, tokenizer, max_tokens=1000
        )
    ]

    assert max(example.num_tokens for example in built) <= MAX_ROW_TOKENS
    assert max(len(example.completion) for example in built) <= MAX_ANSWER_TOKENS
    assert spec.training.max_sequence_length >= MAX_ROW_TOKENS
    assert spec.evaluation.max_new_tokens == MAX_ANSWER_TOKENS
