"""Keys and values in half the width: what reads them, and which models keep them so."""

import families
import numpy as np
import pytest
import tiny_models
import torch
from loraland_engine import kv_memory, prompt_attention
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.native import compiled, torch_threads
from loraland_engine.row_kernels import attend_head


@compiled
def attend(query, keys, values, out):  # type: ignore[no-untyped-def]
    """Answer one query of one head."""
    scores = np.empty(keys.shape[0], dtype=np.float32)
    attend_head(query, keys, values, np.float32(0.25), scores, out)


def halves(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).bfloat16()


def test_decoding_row_reads_halves_as_the_numbers_that_they_are() -> None:
    """The answer over halves is the answer over the same numbers in float32."""
    keys, values = halves(21, 16), halves(21, 16).flip(0)
    query = torch.randn(16, generator=torch.Generator().manual_seed(3)).numpy()
    found, expected = np.empty((2, 16), dtype=np.float32)

    attend(query, kv_memory.as_array(keys), kv_memory.as_array(values), found)

    attend(query, keys.float().numpy(), values.float().numpy(), expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_prompt_reads_halves_as_the_numbers_that_they_are() -> None:
    """The same for a piece of a prompt, longer than one block of keys."""
    keys, values = halves(1, 2, 100, 16), halves(2, 1, 100, 16).view(1, 2, 100, 16)
    y = torch.randn(30, 8 * 16, generator=torch.Generator().manual_seed(4)).numpy()
    strips = prompt_attention.build_strips([(0, 70, 30, 0)], group_size=2)
    found, expected = np.empty((2, 30, 4 * 16), dtype=np.float32)
    rest = (strips, kv_memory.as_array(keys), kv_memory.as_array(values), np.float32(0.25))

    prompt_attention.attend_pieces(torch_threads(), y, *rest, found)

    rest = (strips, keys.float().numpy(), values.float().numpy(), np.float32(0.25))
    prompt_attention.attend_pieces(torch_threads(), y, *rest, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("float32", torch.float32), ("fp16", torch.float32), ("bf16", torch.bfloat16),
     ("int8", torch.bfloat16)],
)  # fmt: skip
def test_keys_and_values_are_as_precise_as_the_products(
    precision: str, expected: torch.dtype
) -> None:
    """Half the width where products round more than that; float32 stays float32."""
    model = families.build("llama", precision)

    engine = Engine(model, tiny_models.ByteTokenizer(), EngineConfig(kv_memory_bytes=1 << 24))

    assert engine._runner.kv.rows.dtype == expected
