"""What only a card can show: the kernels compiled, torch's paged attention, a whole engine on it."""

from pathlib import Path

import gpu
import pytest
import tiny_models
import torch
from loraland_engine import paged_attention
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.kv_memory import KvMemory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]
NUM_ADAPTERS = 4


def test_kernels_agree_with_plain_products() -> None:
    """Triton and grouped GEMM in bf16 stay within the limit of float32 products."""
    found = gpu.measure_kernels(torch.device("cuda"))

    assert [k for k in found if k["relative_error"] > k["limit"]] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_paged_attention_agrees_with_its_reference(dtype: torch.dtype) -> None:
    """Decodes, a fresh prompt and a prompt's second piece in one call, across pages."""
    device = torch.device("cuda")
    kv = KvMemory(
        num_layers=1, num_slots=4, num_heads=2, context_tokens=1024, head_size=64,
        dtype=dtype, device=device, page_tokens=paged_attention.PAGE_TOKENS,
    )  # fmt: skip
    kv.rows.normal_()
    pieces = [(3, 700, 701), (0, 12, 13), (1, 0, 300), (2, 256, 384)]
    rows = paged_attention.build_rows(pieces, context_tokens=kv.context_tokens, device=device)
    q = torch.randn(sum(end - start for _, start, end in pieces), 6, 64, dtype=dtype, device=device)

    found = paged_attention.attend(q, *kv.pages(0), rows, scaling=0.125)

    expected = paged_attention.attend_plainly(q, *kv.pages(0), rows, scaling=0.125)
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)


def test_mixed_batch_begins_as_each_request_alone(tmp_path: Path) -> None:
    """On the card, requests of different adapters in one batch do not change one another."""
    folders = [
        tiny_models.write_adapter(tmp_path / str(i), seed=i, rank=4 + 4 * i)
        for i in range(NUM_ADAPTERS)
    ]
    model = tiny_models.build_llama().to("cuda", torch.bfloat16)
    config = EngineConfig(max_running=8, num_slots=NUM_ADAPTERS, context_tokens=256)
    engine = Engine(model, tiny_models.ByteTokenizer(), config)

    found = gpu.measure_parity(engine, folders)

    assert found["first_token_equal"] == found["requests"] == NUM_ADAPTERS
