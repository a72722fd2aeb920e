"""A llama.cpp file becomes a folder of safetensors, once, and a model that answers."""

import json
from pathlib import Path

import pytest
import tiny_gguf
import torch
from loraland_core.catalogue import BaseModelEntry
from loraland_models import revisions, sources, weights
from loraland_models.sources import ResolvedModel
from loraland_models.weights import Precision

FLOAT32 = Precision(dtype="float32", quantization="none")


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def resolved(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> ResolvedModel:
    return resolve(gguf_file, tmp_path_factory.mktemp("cache"), [])


def resolve(gguf_file: Path, cache_dir: Path, reports: list[str]) -> ResolvedModel:
    entry = BaseModelEntry.model_validate({"source": {"directory": str(gguf_file)}})
    return sources.resolve("tiny", entry, cache_dir=cache_dir, report=reports.append)


def test_revision_is_the_files_own_hash(gguf_file: Path, resolved: ResolvedModel) -> None:
    """It names the file that was read, not what was made of it."""
    assert resolved.revision == f"sha256:{revisions.hash_file(gguf_file)}"


def test_conversion_happens_once(gguf_file: Path, tmp_path: Path) -> None:
    """The second start finds the folder and says nothing."""
    reports: list[str] = []

    first = resolve(gguf_file, tmp_path, reports)
    second = resolve(gguf_file, tmp_path, reports)

    assert first == second
    assert reports == ["converting tiny.gguf to safetensors, once (some seconds)"]


def test_converted_model_is_plain(resolved: ResolvedModel) -> None:
    """Safetensors in float32 with nothing left of the quantized file."""
    config = json.loads((resolved.directory / "config.json").read_text())
    model = weights.load_model(resolved, FLOAT32, device="cpu")

    assert "quantization_config" not in config
    assert {torch.float32} == {p.dtype for p in model.parameters()}
    assert model.config.eos_token_id == 0
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits
    assert logits.shape == (1, 3, len(tiny_gguf.tokens()))


def test_tokenizer_comes_from_the_file(resolved: ResolvedModel) -> None:
    """Text survives a round trip, special tokens are single ones, and the chat template is kept."""
    tokenizer = weights.load_tokenizer(resolved)
    text = '{"a": null}  Ünï\n'

    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<|end|>") == [tokenizer.eos_token_id]
    assert tokenizer.chat_template == tiny_gguf.CHAT_TEMPLATE
