"""The compiled rows against plain torch, and the spreading of work over threads."""

import numpy as np
import pytest
import torch
from loraland_engine import native, row_kernels
from loraland_engine.linear import pack_adapter
from loraland_engine.lora import LoraAdapter, LoraWeights
from loraland_models import int8
from torch.nn import functional


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("num_rows", [1, 2, 3, 16, 17])
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_every_row_is_computed_whatever_the_number_of_threads(
    num_rows: int, num_threads: int
) -> None:
    """Norm and bytes of each row, also where there are more threads than rows."""
    x, weight = random(num_rows, 64), random(64)
    out, rows, scale = (
        np.zeros((num_rows, 64), np.float32),
        np.zeros((num_rows, 64), np.uint8),
        np.zeros(num_rows, np.float32),
    )
    threads = (*native.torch_threads()[:2], num_threads)

    row_kernels.norm_rows(
        threads, x.numpy(), weight.numpy(), np.float32(1e-5), out, rows, scale, True
    )

    expected = functional.rms_norm(x, (64,), weight, 1e-5)
    expected_rows, expected_scale = int8.quantize_rows(expected)
    torch.testing.assert_close(torch.from_numpy(out), expected)
    torch.testing.assert_close(torch.from_numpy(scale), expected_scale[:, 0])
    # One step apart where a value lies between two.
    assert int((torch.from_numpy(rows).int() - expected_rows.int()).abs().max()) <= 1


def test_exponential_is_within_a_millionth() -> None:
    """Over the whole range that float32 has, and zero below it."""
    values = np.linspace(-87, 87, 4001, dtype=np.float32)

    found = np.array([row_kernels.exponential(v) for v in values])

    np.testing.assert_allclose(found, np.exp(values.astype(np.float64)), rtol=1e-6)


def test_packed_int8_adapter_stands_for_nearly_the_same_update() -> None:
    """A times B, out of bytes and one scale a rank, within one percent of the largest entry."""
    weights = LoraWeights(random(8, 64), random(8, 96))

    packed = pack_adapter(LoraAdapter({"linear": weights}, rank=8), torch.int8).weights["linear"]

    assert packed.scale_R is not None
    update = (packed.a_RD.float() * packed.scale_R[:, None]).t() @ packed.b_RO.float()
    expected = weights.a_RD.t() @ weights.b_RO
    assert packed.a_RD.dtype == packed.b_RO.dtype == torch.int8
    assert float((update - expected).abs().max()) < 0.01 * float(expected.abs().max())
