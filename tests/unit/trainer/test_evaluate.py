"""Held-out prompts are answered by the engine that serves, and scored."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_base
import torch
from loraland_core.catalogue import BaseModelEntry, Source
from loraland_core.errors import InvalidInput
from loraland_core.resources.finetunejob import EvaluationSpec, LoraSpec
from loraland_engine.engine import Engine
from loraland_models import sources, weights
from loraland_models.sources import ResolvedModel
from loraland_models.weights import Precision
from loraland_trainer import evaluate, execution, model
from loraland_trainer.evaluate import Examination
from loraland_trainer.examples import Example
from peft import PeftModel

TOKENIZER: Any = tiny_base.build_tokenizer()
FLOAT32 = Precision(dtype="float32", quantization="none")
ENTRY = {"training": {"dtype": "float32"}, "serving": {"dtype": "float32", "quantization": "none"}}
EXAMPLES = [
    Example(TOKENIZER.encode(prompt), [*TOKENIZER.encode(answer), 257], answer)
    for prompt, answer in [("a longer prompt", "yes"), ("b", "no"), ("some more", "maybe")]
]


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> ResolvedModel:
    folder = tiny_base.write_base_model(tmp_path_factory.mktemp("base"))
    entry = BaseModelEntry(source=Source(directory=str(folder)))
    return sources.resolve("tiny", entry, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def adapter(resolved: ResolvedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the base answers."""
    folder = tmp_path_factory.mktemp("adapter")
    spec = LoraSpec(rank=4, alpha=8, target_modules=["all-linear"])
    tuned = model.attach_adapter(weights.load_model(resolved, FLOAT32, device="cpu"), spec)
    torch.manual_seed(0)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(folder, save_embedding_layers=False)
    (folder / "prompt.json").write_text('{"schemaVersion": 1, "kind": "messages"}')
    return folder


@pytest.fixture(scope="module")
def engine(resolved: ResolvedModel) -> Iterator[Engine]:
    entry = BaseModelEntry.model_validate({"source": {"directory": "/absent"}} | ENTRY)
    built = evaluate.build_engine(resolved, entry, TOKENIZER, context_tokens=32, rank=4)
    yield built
    built.close()


def plain_perplexity(resolved: ResolvedModel, adapter: Path | None) -> float:
    """Return what Transformers and PEFT say, row by row."""
    causal: Any = weights.load_model(resolved, FLOAT32)
    if adapter is not None:
        causal = PeftModel.from_pretrained(causal, adapter).eval()
    total, count = 0.0, 0
    for example in EXAMPLES:
        ids = torch.tensor([example.prompt + example.completion])
        with torch.no_grad():
            logprobs = causal(input_ids=ids).logits[0].log_softmax(-1)
        for place, token in enumerate(example.completion, start=len(example.prompt)):
            total += float(logprobs[place - 1, token])
            count += 1
    return math.exp(-total / count)


@pytest.mark.parametrize("is_tuned", [False, True], ids=["base", "tuned"])
def test_perplexity_is_that_of_the_plain_model(
    *, engine: Engine, resolved: ResolvedModel, adapter: Path, is_tuned: bool
) -> None:
    """Over the tokens of the completions, their end included; float32, within 1e-4."""
    folder = adapter if is_tuned else None
    examination = Examination(engine, EXAMPLES, EvaluationSpec(metrics=["Perplexity"]))

    found = examination.perplexity(folder)

    assert found == pytest.approx(plain_perplexity(resolved, folder), rel=1e-4)


def test_base_and_tuned_answer_for_themselves(engine: Engine, adapter: Path) -> None:
    """The adapter is in its slot while it is asked, and out of it afterwards."""
    spec = EvaluationSpec(metrics=["RougeL", "Perplexity"], max_new_tokens=5)
    examination = Examination(engine, EXAMPLES, spec)

    base, base_scores = examination.take("base", None)
    tuned, _ = examination.take("tuned", adapter)
    again, _ = examination.take("base", None)

    assert len(base) == len(EXAMPLES)
    assert list(base_scores) == ["RougeL", "Perplexity"]
    assert base != tuned
    assert base == again


def test_a_prompt_beyond_the_context_is_asked_by_its_end(engine: Engine) -> None:
    """Scores are of what a replica could be asked; the beginning is lost, as in training."""
    long = Example([*range(97, 122)] * 3, [120, 257], "x")
    examination = Examination(engine, [long], EvaluationSpec(metrics=["Perplexity"]))

    answers, scores = examination.take("base", None)

    assert len(answers) == 1
    assert math.isfinite(scores["Perplexity"])


def test_an_artifact_that_a_replica_would_refuse_is_refused(
    engine: Engine, adapter: Path, tmp_path: Path
) -> None:
    """What is tried is what was uploaded."""
    examination = Examination(engine, EXAMPLES, EvaluationSpec())
    examination.try_adapter(adapter)
    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "adapter_model.safetensors").write_bytes(b"damaged")

    with pytest.raises(InvalidInput, match="adapter_model"):
        examination.try_adapter(tmp_path)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        pytest.param({"metrics": ["MAE"]}, "is no number; MAE needs numbers", id="references"),
        pytest.param({"metrics": ["PassAt1"]}, "program need each other", id="no-program"),
        pytest.param(
            {"metrics": ["Perplexity"], "gate": {"minimum": "3"}},
            "gate.minimum: is 3, and the first metric is Perplexity: use gate.maximum",
            id="minimum",
        ),
        pytest.param({"gate": {"maximum": "3"}}, "use gate.minimum", id="maximum"),
    ],
)
def test_what_cannot_be_scored_is_said_before_training(spec: Any, part: str) -> None:
    """No API server may have seen the job."""
    with pytest.raises(InvalidInput, match=part):
        evaluate.check_references(EvaluationSpec.model_validate(spec), EXAMPLES)


def test_programs_are_scored_by_running_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer in its own row's program."""
    monkeypatch.setattr(execution.sandbox, "run", _run_here)
    examples = [Example([], [], "", program=f"{execution.ANSWER}\nassert x == {n}") for n in (1, 2)]

    share = evaluate.score_answers("PassAt1", ["x = 1", "x = 1"], examples)

    assert share == 0.5


def _run_here(program: str) -> Any:
    try:
        exec(program, {})  # noqa: S102 -- written above
    except AssertionError as error:
        return execution.sandbox.Outcome(passed=False, error=str(error))
    return execution.sandbox.Outcome(passed=True)


def test_scores_of_base_and_tuned_are_paired() -> None:
    """One line a metric."""
    [score] = evaluate.pair_scores({"F1": 0.1}, {"F1": 0.9})

    assert (score.name, score.base, score.tuned) == ("F1", 0.1, 0.9)
