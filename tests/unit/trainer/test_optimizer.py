"""The optimizer that a spec asks for."""

import pytest
import tiny_models
import torch
from loraland_core.errors import InvalidInput
from loraland_core.resources.finetunejob import LoraSpec, TrainingSpec
from loraland_trainer import model, optimizer

TUNED = model.attach_adapter(tiny_models.build_llama(), LoraSpec(rank=4))


def build(**lora: str) -> torch.optim.Optimizer:
    spec = TrainingSpec(learning_rate="0.001")
    return optimizer.build(TUNED, spec, LoraSpec(**lora), is_quantized=True)  # type: ignore[arg-type]


def test_lora_plus_gives_b_a_rate_of_its_own() -> None:
    """A learns at the rate, B sixteen times faster; nothing decays."""
    first, second = build(learning_rate_ratio="16").param_groups

    assert (first["lr"], second["lr"]) == (0.001, 0.016)
    assert {p.shape[0] for p in first["params"]} == {4}
    assert {p.shape[1] for p in second["params"]} == {4}
    assert first["weight_decay"] == second["weight_decay"] == 0


def test_without_it_there_is_one_rate() -> None:
    """All matrices in one fused step."""
    [only] = build().param_groups

    assert len(only["params"]) == 8
    assert only["fused"]


@pytest.mark.parametrize(
    ("wish", "is_quantized", "has_gpu", "expected"),
    [
        ("Auto", True, True, "PagedAdamW8bit"),
        ("Auto", False, True, "AdamW"),
        ("Auto", True, False, "AdamW"),
        ("AdamW", True, True, "AdamW"),
        ("PagedAdamW8bit", False, True, "PagedAdamW8bit"),
    ],
)
def test_states_are_paged_where_that_helps(
    *, monkeypatch: pytest.MonkeyPatch, wish: str, is_quantized: bool, has_gpu: bool, expected: str
) -> None:
    """QLoRA on a GPU, unless the job says otherwise."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)

    assert optimizer.choose(wish, is_quantized=is_quantized) == expected


def test_paged_states_without_a_gpu_are_refused() -> None:
    """The message names the field and what to write there."""
    with pytest.raises(InvalidInput, match=r"optimizer: .*need a GPU.*use AdamW or Auto"):
        optimizer.choose("PagedAdamW8bit", is_quantized=True)


def test_rank_stabilized_scaling_is_by_the_root_of_the_rank() -> None:
    """Alpha / sqrt(rank), as PEFT writes it into the adapter's configuration."""
    tuned = model.attach_adapter(
        tiny_models.build_llama(), LoraSpec(rank=4, alpha=16, rs_lora=True)
    )

    scaling = {m.scaling["default"] for m in tuned.modules() if hasattr(m, "lora_A")}
    assert scaling == {8.0}
    assert tuned.peft_config["default"].use_rslora
