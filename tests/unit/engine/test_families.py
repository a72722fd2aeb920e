"""A tiny random model of each family: the engine against the Transformers class and PEFT, float32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import tiny_models
import torch
from families import build
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.sequence import SamplingParams
from peft import PeftModel

PROMPTS = [b"a prompt", b"another prompt, longer than a step of this engine", b"x", b"a prompt"]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    root = tmp_path_factory.mktemp("families")
    made: dict[str, list[Path]] = {}

    def folders(family: str) -> list[Path]:
        if family not in made:
            made[family] = [
                families.write_adapter(root / f"{family}-{rank}", build(family), rank=rank)
                for rank in (3, 8)
            ]
        return made[family]

    return folders


def scores(
    model: Any, folders: list[Path], *, fused: bool = True, max_step_tokens: int = 16
) -> list[float]:
    """Score one completion after each prompt, without and with each adapter, in mixed batches."""
    config = EngineConfig(
        max_running=4, max_step_tokens=max_step_tokens, context_tokens=128, num_slots=2, fused=fused
    )
    engine = Engine(model, tiny_models.ByteTokenizer(), config)
    for folder in folders:
        engine.insert_adapter(str(folder), engine.read_adapter(folder))
    found: dict[str, float] = {}
    requests = [(str(f) if f else "", p) for p in PROMPTS for f in [None, *folders]]
    for index, (adapter, prompt) in enumerate(requests):
        engine.submit_score(str(index), list(prompt), [list(b"completed")], adapter_id=adapter)
    engine.submit("busy", list(b"decodes meanwhile"), SamplingParams(max_tokens=8, ignore_eos=True))
    while engine.has_work():
        for output in engine.step():
            if output.request_id != "busy":
                found[output.request_id] = output.logprob
    engine.close()
    return [found[str(index)] for index in range(len(requests))]


def reference(family: str, folders: list[Path]) -> list[float]:
    expected = []
    models = [build(family), *(PeftModel.from_pretrained(build(family), f) for f in folders)]
    for prompt in PROMPTS:
        ids = torch.tensor([list(prompt + b"completed")])
        for model in models:
            with torch.no_grad():
                logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
            rows = logprobs[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None])
            expected.append(float(rows.sum()))
    return expected


@pytest.mark.parametrize("family", families.FAMILIES)
def test_mixed_batch_scores_as_the_class_and_peft_do(
    family: str, adapters: Callable[[str], list[Path]]
) -> None:
    """Base and two adapters of different ranks, prompts in pieces, within 2e-4."""
    folders = adapters(family)

    found = scores(build(family), folders)

    assert found == pytest.approx(reference(family, folders), abs=2e-4)


@pytest.mark.parametrize("family", families.FUSED)
def test_fused_pass_over_int8_is_the_class_over_int8(
    family: str, adapters: Callable[[str], list[Path]]
) -> None:
    """Without an adapter only the order of sums differs; a rounding step may show it, slightly."""
    folders: list[Path] = []

    fused = scores(build(family, "int8"), folders)

    by_class = scores(build(family, "int8"), folders, fused=False)
    assert fused == pytest.approx(by_class, rel=0.01)


def test_int8_adapters_are_near_the_float_ones(adapters: Callable[[str], list[Path]]) -> None:
    """Quantized A and B over an int8 base: within two percent of PEFT in float32."""
    folders = adapters("llama")

    found = scores(build("llama", "int8"), folders)

    assert found == pytest.approx(reference("llama", folders), rel=0.02)


def test_answers_do_not_depend_on_the_chunk_size(adapters: Callable[[str], list[Path]]) -> None:
    """Prompts whole, or in pieces of a few tokens, within 1e-4."""
    folders = adapters("qwen3")

    whole = scores(build("qwen3"), folders, max_step_tokens=512)

    assert whole == pytest.approx(scores(build("qwen3"), folders, max_step_tokens=5), abs=1e-4)


def test_model_works_as_before_after_the_engine_has_used_it() -> None:
    """Its weights were joined in memory; its own class still sees them."""
    model, ids = build("llama"), torch.tensor([list(b"prompt")])
    with torch.no_grad():
        before = model(input_ids=ids).logits

    scores(model, [])

    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, before)
