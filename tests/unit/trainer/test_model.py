"""An adapter stands on the weights that will serve it."""

from pathlib import Path
from typing import Any

import pytest
import tiny_base
import torch
from loraland_core.catalogue import BaseModelEntry, Source
from loraland_core.resources.finetunejob import LoraSpec
from loraland_models import int8, sources, weights
from loraland_models.sources import ResolvedModel
from loraland_models.weights import Precision
from loraland_trainer import model

FLOAT32 = Precision(dtype="float32", quantization="none")
INT8 = Precision(dtype="float32", quantization="int8")


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
    return folder


def answer(tuned: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = tuned(input_ids=torch.tensor([[1, 2, 3, 4]])).logits
    return logits


def test_int8_base_is_near_the_full_one(resolved: ResolvedModel, adapter: Path) -> None:
    """With and without the adapter, and both differ from each other by more than the rounding."""
    full = model.load_served(resolved, FLOAT32, adapter)
    quantized = model.load_served(resolved, INT8, adapter)

    tuned_error = float((answer(full) - answer(quantized)).abs().max())
    with full.disable_adapter(), quantized.disable_adapter():
        base_error = float((answer(full) - answer(quantized)).abs().max())
        base = answer(quantized)

    effect = float((answer(quantized) - base).abs().max())
    assert 0 < tuned_error < 0.2 * effect
    assert 0 < base_error < 0.2 * effect


def test_int8_leaves_the_adapter_alone(resolved: ResolvedModel, adapter: Path) -> None:
    """Every linear of the base is quantized, none of the adapter's."""
    quantized = model.load_served(resolved, INT8, adapter)

    plain = [n for n, m in quantized.named_modules() if isinstance(m, torch.nn.Linear)]
    whole = [n for n, m in quantized.named_modules() if isinstance(m, int8.Int8Linear)]
    assert len(whole) == 15
    assert all("lora_" in name for name in plain)
