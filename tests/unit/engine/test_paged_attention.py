"""What a GPU's step runs, on a CPU: KV memory in pages, one attention call, Triton's adapters."""

import os
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"

import pytest
import tiny_models
import torch
from loraland_engine import devices, paged_attention
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.kv_memory import KvMemory
from loraland_engine.lora import AdapterSlots
from loraland_engine.lora_grouped import GroupedSlots
from loraland_engine.sequence import SamplingParams
from torch.nn import functional

CPU = torch.device("cpu")
PAGE_TOKENS = 16
# One prompt takes several steps and several pages; others decode beside it.
PROMPTS = {"short": 5, "long": 30}
CONFIG = EngineConfig(
    max_running=4, max_step_tokens=16, context_tokens=128, num_slots=3, fused=False
)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_attention, "PAGE_TOKENS", PAGE_TOKENS)


def generate(config: EngineConfig, folders: dict[str, Path]) -> dict[str, list[int]]:
    engine = Engine(tiny_models.build_llama(), tiny_models.ByteTokenizer(), config)
    for name, folder in folders.items():
        engine.insert_adapter(name, engine.read_adapter(folder))
    found: dict[str, list[int]] = {}
    for adapter in ("", *folders):
        for name, num_tokens in PROMPTS.items():
            request_id = f"{name} {adapter}"
            params = SamplingParams(max_tokens=4, ignore_eos=True)
            engine.submit(request_id, list(range(num_tokens)), params, adapter_id=adapter)
            found[request_id] = []
    while engine.has_work():
        for output in engine.step():
            found[output.request_id] += output.token_ids
    engine.close()
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        "four": tiny_models.write_adapter(root / "four", seed=1, rank=4),
        "twenty": tiny_models.write_adapter(root / "twenty", seed=2, rank=20),
    }


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("kind", ["triton", "grouped"])
def test_step_of_a_gpu_generates_what_a_cpu_does(
    kind: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages, tables and kernels give the tokens of the plain path, across steps and pages."""
    expected = generate(CONFIG, folders)

    def build_slots(device: torch.device, *, num_slots: int, max_tokens: int) -> AdapterSlots:
        if kind == "grouped":
            return GroupedSlots(num_slots=num_slots)
        lora_triton = pytest.importorskip("loraland_engine.lora_triton")
        slots: AdapterSlots = lora_triton.TritonSlots(
            num_slots=num_slots, max_tokens=max_tokens, device=device
        )
        return slots

    monkeypatch.setattr(devices, "build_slots", build_slots)
    monkeypatch.setattr(paged_attention, "is_supported", lambda *_: True)
    assert generate(CONFIG, folders) == expected


@pytest.mark.usefixtures("small_pages")
def test_reference_is_attention_over_each_sequence_alone() -> None:
    """A sequence's queries see its own keys up to their position, wherever its pages lie."""
    torch.manual_seed(0)
    kv = KvMemory(
        num_layers=1, num_slots=3, num_heads=2, context_tokens=40, head_size=8,
        dtype=torch.float32, device=CPU, page_tokens=PAGE_TOKENS,
    )  # fmt: skip
    pieces = [(2, 0, 20), (0, 33, 34)]
    k, v = torch.randn(2, 3, 48, 2, 8)
    for slot in range(3):
        everywhere = torch.arange(48)
        kv.write(0, k[slot], v[slot], torch.full((48,), slot), everywhere)
    q = torch.randn(21, 4, 8)
    rows = paged_attention.build_rows(pieces, context_tokens=kv.context_tokens, device=CPU)

    found = paged_attention.attend(q, *kv.pages(0), rows, scaling=0.3)

    parts = []
    for queries, (slot, _, end) in zip((q[:20], q[20:]), pieces, strict=True):
        heads = [t[slot, :end].transpose(0, 1).repeat_interleave(2, 0) for t in (k, v)]
        out = functional.scaled_dot_product_attention(
            queries.transpose(0, 1), *heads, is_causal=len(queries) > 1, scale=0.3
        )
        parts.append(out.transpose(0, 1))
    torch.testing.assert_close(found, torch.cat(parts))


def test_pages_share_memory_with_slots() -> None:
    """Pages are another view of what slots hold: nothing is copied."""
    kv = KvMemory(
        num_layers=2, num_slots=2, num_heads=1, context_tokens=20, head_size=4,
        dtype=torch.float32, device=CPU, page_tokens=PAGE_TOKENS,
    )  # fmt: skip

    kv.write(1, torch.ones(1, 1, 4), torch.ones(1, 1, 4), torch.tensor([1]), torch.tensor([17]))

    keys, values = kv.pages(1)
    assert kv.context_tokens == 32
    assert keys.shape == values.shape == (4, PAGE_TOKENS, 1, 4)
    assert keys[3, 1].sum() == 4
    assert keys.data_ptr() == kv.keys[1].data_ptr()


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cpu", torch.bfloat16), ("cpu", torch.float32), ("cuda", torch.float32)],
)
def test_pages_are_for_gpus_in_half_precision(device: str, dtype: torch.dtype) -> None:
    """Elsewhere memory keeps its layout."""
    assert not paged_attention.is_supported(torch.device(device), dtype)
