"""Channels made even before rounding: the model computes the same, and rounds better."""

from pathlib import Path
from typing import Any

import families
import pytest
import torch
from loraland_models import balancing, int8
from peft import PeftModel

IDS = torch.tensor([list(b"a prompt to read")])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits[0]
    return found


def build_uneven() -> Any:
    """Return a model some of whose channels are fifty times as large as the others."""
    model = families.build("llama")
    for layer in model.model.layers:
        layer.input_layernorm.weight.data[3] *= 50
        layer.post_attention_layernorm.weight.data[5] *= 50
        for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            linear.weight.data[:, 3] /= 50
        for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
            linear.weight.data[:, 5] /= 50
    return model


@pytest.mark.parametrize("family", families.FUSED)
def test_balanced_model_computes_what_it_did(family: str) -> None:
    """Biases, tied heads and norms of heads included, within 1e-4."""
    model = families.build(family)
    before = logits(model)

    factors = families.balance(model)

    assert set(factors) >= {"lm_head", "model.layers.1.mlp.up_proj"}
    torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gemma", "phi"])
def test_other_families_stay_as_they_are(family: str) -> None:
    """Their norms are shaped otherwise; nothing is divided, and nothing is lost."""
    model = families.build(family)
    before = logits(model)

    factors = families.balance(model)

    assert factors == {}
    assert torch.equal(logits(model), before)


def test_adapter_on_a_balanced_model_is_adapted(tmp_path: Path) -> None:
    """PEFT's answer over the model as it was, within 1e-4."""
    folder = families.write_adapter(tmp_path, families.build("llama"), rank=4)
    expected = logits(PeftModel.from_pretrained(families.build("llama"), folder).eval())
    model = families.build("llama")
    factors = families.balance(model)

    tuned = PeftModel.from_pretrained(model, folder).eval()
    balancing.adapt_wrapped(tuned, factors)

    torch.testing.assert_close(logits(tuned), expected, atol=1e-4, rtol=1e-4)


def test_uneven_channels_lose_less_when_they_are_balanced() -> None:
    """At most half of the error that rounding alone makes."""
    expected = logits(build_uneven())
    plain, balanced = build_uneven(), build_uneven()

    int8.quantize_linears(plain, {})
    int8.quantize_linears(balanced, families.balance(balanced))

    errors = [float((logits(m) - expected).pow(2).mean().sqrt()) for m in (balanced, plain)]
    assert errors[0] < 0.5 * errors[1]


def test_factors_keep_no_weights_alive() -> None:
    """A factor that remembered how it was computed would hold the float weights with it."""
    factors = families.balance(families.build("llama"))

    tensors = [t for f in factors.values() for t in (f.input_D, f.output_N) if t is not None]
    assert tensors
    assert not any(t.requires_grad for t in tensors)
