"""Weights are loaded at the precision that was asked for, and keep it."""

from pathlib import Path

import pytest
import tiny_base
import torch
from loraland_core.catalogue import BaseModelEntry, ServingPrecision, Source, TrainingPrecision
from loraland_core.errors import InvalidInput
from loraland_models import sources, weights
from loraland_models.sources import ResolvedModel
from loraland_models.weights import Precision
from torch import Tensor

INT8 = Precision(dtype="float32", quantization="int8")
NF4 = Precision(dtype="float32", quantization="nf4")
FLOAT32 = Precision(dtype="float32", quantization="none")


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> ResolvedModel:
    folder = tiny_base.write_base_model(tmp_path_factory.mktemp("base"))
    entry = BaseModelEntry(
        source=Source(directory=str(folder)),
        training=TrainingPrecision(dtype="float32"),
        serving=ServingPrecision(dtype="bf16", quantization="none"),
    )
    return sources.resolve("tiny", entry, cache_dir=tmp_path_factory.mktemp("cache"))


def logits(model: torch.nn.Module) -> Tensor:
    output: Tensor = model(input_ids=torch.tensor([[1, 2, 3, 4]])).logits
    return output


@pytest.mark.parametrize(
    ("method", "expected"), [("QLoRA", "nf4"), ("LoRA", "float32")], ids=["qlora", "lora"]
)
def test_method_decides_the_training_precision(
    resolved: ResolvedModel, method: str, expected: str
) -> None:
    """QLoRA trains over quantized weights, LoRA over full ones."""
    assert expected == weights.training_precision(resolved.entry, method).label


def test_serving_precision_is_the_catalogues(resolved: ResolvedModel) -> None:
    """Scores are measured at this one."""
    assert weights.serving_precision(resolved.entry).label == "bf16"


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        pytest.param(FLOAT32, torch.float32, id="float32"),
        pytest.param(Precision(dtype="bf16", quantization="none"), torch.bfloat16, id="bf16"),
    ],
)
def test_weights_have_the_dtype(
    resolved: ResolvedModel, precision: Precision, dtype: torch.dtype
) -> None:
    """All weights are loaded in one dtype, ready for evaluation."""
    model = weights.load_model(resolved, precision, device="cpu")

    assert {dtype} == {p.dtype for p in model.parameters()}
    assert not model.training


def test_nf4_computes_as_asked_and_keeps_the_gradient(resolved: ResolvedModel) -> None:
    """An evaluation step must not switch the weights to a layout without a backward."""
    model = weights.load_model(resolved, NF4, device="cpu")
    with torch.no_grad():
        before = logits(model)
    embedded = model.get_input_embeddings()(torch.tensor([[1, 2, 3, 4]])).detach()
    embedded.requires_grad_()

    after = model(inputs_embeds=embedded).logits
    after.sum().backward()

    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert embedded.grad is not None
    assert float(embedded.grad.abs().max()) > 0


def test_nf4_is_near_the_full_weights(resolved: ResolvedModel) -> None:
    """Quantization with double quantization changes little, but something."""
    with torch.no_grad():
        full = logits(weights.load_model(resolved, FLOAT32, device="cpu"))
        quantized = logits(weights.load_model(resolved, NF4, device="cpu"))

    difference = float((full - quantized).abs().max())
    assert 0 < difference < 0.3 * float(full.abs().max())


def test_int8_is_nearer_to_the_full_weights_than_nf4(resolved: ResolvedModel) -> None:
    """The head is quantized too, and the difference is still a fraction of that of 4 bits."""
    with torch.no_grad():
        full = logits(weights.load_model(resolved, FLOAT32, device="cpu"))
        quantized = logits(weights.load_model(resolved, INT8, device="cpu"))

    difference = float((full - quantized).abs().max())
    assert 0 < difference < 0.05 * float(full.abs().max())


def test_int8_is_refused_by_name_on_a_gpu(resolved: ResolvedModel) -> None:
    """A precision that cannot be computed is an error before anything is loaded."""
    with pytest.raises(InvalidInput, match="int8 weights are computed on CPUs only"):
        weights.load_model(resolved, INT8, device="cuda")


@pytest.mark.parametrize("precision", [FLOAT32, INT8], ids=["float32", "int8"])
def test_loaded_weights_leave_the_file(resolved: ResolvedModel, precision: Precision) -> None:
    """Nothing maps the file once it is loaded: a replica's memory is its weights, not both."""
    model = weights.load_model(resolved, precision, device="cpu")

    maps = Path("/proc/self/maps").read_text()
    assert str(resolved.directory) not in maps
    assert model.device.type == "cpu"
