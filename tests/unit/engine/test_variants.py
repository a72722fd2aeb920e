"""Kinds of adapters and of requests, in one batch: adapters against PEFT, requests against alone."""

from pathlib import Path
from typing import Any

import families
import pytest
import tiny_models
import torch
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.memory import BLOCK_TOKENS
from loraland_engine.sequence import SamplingParams
from peft import PeftModel

# Scalings are about 1 each, so that none drowns the others.
VARIANTS: dict[str, dict[str, Any]] = {
    "rank-stabilized": {"rank": 4, "lora_alpha": 2, "use_rslora": True},
    "rank-pattern": {"rank": 4, "lora_alpha": 4, "rank_pattern": {"v_proj": 2, "q_proj": 7}},
    "alpha-pattern": {"rank": 5, "lora_alpha": 5, "alpha_pattern": {"q_proj": 1, "k_proj": 9}},
    "all-of-them": {
        "rank": 6, "lora_alpha": 3, "use_rslora": True, "rank_pattern": {"layers.1.self_attn.v_proj": 3},
        "alpha_pattern": {"k_proj": 1},
    },
    "some-linears": {"rank": 3, "target_modules": ["v_proj"]},
}  # fmt: skip
# By the fused pass, and by two classes of their own.
BUILT = ("llama", "qwen3", "gemma", "phi")
PROMPT = list(b"a prompt that is longer than a step of this engine, and than two blocks")
COMPLETION = list(b"completed")


def build_engine(family: str, folders: dict[str, Path]) -> Engine:
    config = EngineConfig(
        max_running=6, max_step_tokens=16, context_tokens=128, num_slots=max(1, len(folders))
    )
    engine = Engine(families.build(family), tiny_models.ByteTokenizer(), config)
    for name, folder in folders.items():
        engine.insert_adapter(name, engine.read_adapter(folder))
    return engine


def finish(engine: Engine) -> dict[tuple[str, int], Any]:
    """Return each completion's tokens, summed score, and tokens that were not computed."""
    tokens: dict[tuple[str, int], list[int]] = {}
    scores: dict[tuple[str, int], tuple[float, int]] = {}
    while engine.has_work():
        for output in engine.step():
            key = (output.request_id, output.index)
            tokens.setdefault(key, []).extend(output.token_ids)
            if output.finish_reason:
                scores[key] = (output.logprob, output.num_cached_tokens)
    return {key: (found, *scores[key]) for key, found in tokens.items()}


def reference(family: str, folder: Path) -> float:
    model = PeftModel.from_pretrained(families.build(family), folder).eval()
    ids = torch.tensor([PROMPT + COMPLETION])
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
    return float(logprobs[len(PROMPT) - 1 : -1].gather(1, ids[0, len(PROMPT) :, None]).sum())


@pytest.mark.parametrize("family", BUILT)
def test_every_kind_of_adapter_scores_as_peft_does_in_one_batch(
    family: str, tmp_path: Path
) -> None:
    """Scalings, ranks and alphas by linear, and subsets of linears, within 2e-4."""
    folders = {
        name: families.write_adapter(tmp_path / name, families.build(family), **settings)
        for name, settings in VARIANTS.items()
    }
    engine = build_engine(family, folders)
    for name in folders:
        engine.submit_score(name, PROMPT, [COMPLETION], adapter_id=name)

    found = finish(engine)

    expected = {name: reference(family, folder) for name, folder in folders.items()}
    scores = {name: found[name, 0][1] for name in folders}
    assert scores == pytest.approx(expected, abs=2e-4)
    assert len({round(score, 2) for score in scores.values()}) == len(folders)


@pytest.mark.parametrize("family", BUILT)
def test_found_prefix_changes_no_token_and_no_score(family: str, tmp_path: Path) -> None:
    """The same request twice, with an adapter: the second computes less and says the same."""
    folder = families.write_adapter(tmp_path, families.build(family), rank=4)
    engine = build_engine(family, {"a": folder})
    runs = []
    for _ in range(2):
        engine.submit("g", PROMPT, SamplingParams(max_tokens=12, ignore_eos=True), adapter_id="a")
        engine.submit_score("s", PROMPT, [COMPLETION], adapter_id="a")
        runs.append(finish(engine))

    first, second = runs
    assert second["g", 0][0] == first["g", 0][0]
    assert second["s", 0][1] == pytest.approx(first["s", 0][1], abs=1e-4)
    assert second["g", 0][2] == second["s", 0][2] == len(PROMPT) // BLOCK_TOKENS * BLOCK_TOKENS


DRAWN = SamplingParams(max_tokens=10, temperature=0.9, seed=7, ignore_eos=True)
REQUESTS: dict[str, SamplingParams] = {
    "greedy": SamplingParams(max_tokens=10, ignore_eos=True),
    "biased": SamplingParams(max_tokens=10, ignore_eos=True, logit_bias=((65, 4.0), (66, -100.0))),
    "several": SamplingParams(**vars(DRAWN) | {"n": 3}),
    "filtered": SamplingParams(**vars(DRAWN) | {"top_k": 20, "top_p": 0.9, "min_p": 0.01}),
    "penalized": SamplingParams(
        **vars(DRAWN) | {"repetition_penalty": 1.3, "presence_penalty": 0.5}
    ),
}


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_each_kind_of_request_gets_the_same_alone_and_in_a_mixed_batch(
    family: str, tmp_path: Path
) -> None:
    """Bias, ``n``, filters, penalties and scores, each with an adapter, beside all the others."""
    folder = families.write_adapter(tmp_path, families.build(family), rank=4)
    engine = build_engine(family, {"a": folder})
    submitters = {
        name: lambda name=name: engine.submit(name, PROMPT[:20], REQUESTS[name], adapter_id="a")
        for name in REQUESTS
    }
    submitters["scored"] = lambda: engine.submit_score(
        "scored", PROMPT[:20], [COMPLETION, COMPLETION[:3]], adapter_id="a"
    )
    alone: dict[tuple[str, int], Any] = {}
    for submit in submitters.values():
        submit()
        alone |= finish(engine)

    for submit in submitters.values():
        submit()
    mixed = finish(engine)

    assert {key: found[0] for key, found in mixed.items()} == {
        key: found[0] for key, found in alone.items()
    }
    for index in range(2):
        assert mixed["scored", index][1] == pytest.approx(alone["scored", index][1], abs=1e-4)
