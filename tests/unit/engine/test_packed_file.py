"""Packed adapters: what is mapped is what was packed, and nothing else is read."""

from pathlib import Path

import pytest
import tiny_models
import torch
from loraland_core.errors import ArtifactInvalid
from loraland_engine import packed_file
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.lora import LoraAdapter, LoraWeights
from loraland_engine.sequence import SamplingParams
from safetensors.torch import load_file

GREEDY = SamplingParams(max_tokens=12, ignore_eos=True)


def build_adapter(*, is_int8: bool) -> LoraAdapter:
    """Return an adapter whose tensors end at odd places."""
    generator = torch.Generator().manual_seed(1)

    def weights(rank: int, size: int) -> LoraWeights:
        a, b = (torch.randn(rank, size, generator=generator) for _ in range(2))
        if not is_int8:
            return LoraWeights(a, b)
        return LoraWeights((a * 20).to(torch.int8), (b * 20).to(torch.int8), torch.rand(rank))

    return LoraAdapter({"x.q": weights(3, 7), "x.k": weights(1, 5)}, rank=3)


@pytest.mark.parametrize("is_int8", [True, False], ids=["int8", "float"])
def test_read_returns_what_was_written(tmp_path: Path, *, is_int8: bool) -> None:
    """Bit for bit, aligned, and readable by the format's own library."""
    adapter, path = build_adapter(is_int8=is_int8), tmp_path / "a.safetensors"

    size_bytes = packed_file.write(adapter, path, packing="p")
    found = packed_file.read(path, packing="p")

    assert (size_bytes, found.rank) == (path.stat().st_size, 3)
    assert list(tmp_path.iterdir()) == [path]
    for module, weights in adapter.weights.items():
        read = found.weights[module]
        torch.testing.assert_close((read.a_RD, read.b_RO), (weights.a_RD, weights.b_RO))
        assert (read.scale_R is None) == (weights.scale_R is None)
        assert read.a_RD.data_ptr() % packed_file.ALIGN_BYTES == 0
    assert torch.equal(load_file(path)["x.q#a"], adapter.weights["x.q"].a_RD)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\x10", b"\x02\0\0\0\0\0\0\0{}"],
    ids=["absent", "empty", "cut", "other"],
)
def test_read_refuses_what_is_not_packed_for_it(tmp_path: Path, content: bytes | None) -> None:
    """The caller packs it again."""
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ArtifactInvalid) as caught:
        packed_file.read(path, packing="p")

    assert caught.value.reason == "PackedFileLost"


def test_read_refuses_a_file_that_lost_its_end(tmp_path: Path) -> None:
    """A mapping beyond the end of a file would kill the process that reads it."""
    path = tmp_path / "a.safetensors"
    packed_file.write(build_adapter(is_int8=True), path, packing="p")
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ArtifactInvalid, match="ends"):
        packed_file.read(path, packing="p")


def test_mapping_outlives_its_file(tmp_path: Path) -> None:
    """Whoever evicts the file takes nothing from a slot that holds it."""
    adapter, path = build_adapter(is_int8=True), tmp_path / "a.safetensors"
    packed_file.write(adapter, path, packing="p")
    found = packed_file.read(path, packing="p")

    path.unlink()

    assert torch.equal(found.weights["x.q"].b_RO, adapter.weights["x.q"].b_RO)


def test_engine_answers_alike_from_files_and_from_their_packed_form(tmp_path: Path) -> None:
    """Packing changes where an adapter lies, not what it computes."""
    folder = tiny_models.write_adapter(tmp_path / "adapter", seed=1)
    config = EngineConfig(max_running=2, max_step_tokens=16, context_tokens=64, num_slots=2)
    engine = Engine(tiny_models.build_llama(), tiny_models.ByteTokenizer(), config)
    engine.adapters.pack(folder, tmp_path / "packed.safetensors")

    engine.insert_adapter("files", engine.adapters.read(folder))
    engine.insert_adapter("packed", engine.adapters.read_packed(tmp_path / "packed.safetensors"))
    for name in ("files", "packed"):
        engine.submit(name, [1, 2, 3], GREEDY, adapter_id=name)
    found: dict[str, list[int]] = {"files": [], "packed": []}
    while engine.has_work():
        for output in engine.step():
            found[output.request_id] += output.token_ids

    engine.close()
    assert len(found["files"]) == 12
    assert found["packed"] == found["files"]
