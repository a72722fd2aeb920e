"""Int8 weights packed once: the same sums in tile registers and without, for any number of rows."""

import numpy as np
import pytest
import torch
from loraland_engine import byte_blocks, byte_products, tile_registers
from loraland_engine.byte_weights import ByteWeights
from loraland_models.int8 import ZERO_POINT

pytestmark = pytest.mark.skipif(
    not byte_blocks.is_supported(byte_blocks.WIDTH), reason="the processor has no AVX-512 VNNI"
)


@pytest.fixture(params=["tiles", "lanes"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of multiplying, where the processor has them."""
    if request.param == "lanes":
        monkeypatch.setattr(byte_products, "tiles", lambda _: np.empty(0, dtype=np.uint8))
    elif not tile_registers.is_supported(tile_registers.BYTES):
        pytest.skip("the processor has no AMX int8")
    return str(request.param)


def draw(num_rows: int, num_out: int, num_in: int) -> tuple[torch.Tensor, ...]:
    """Return rows, weights, and the weights' scales."""
    generator = torch.Generator().manual_seed(num_rows * num_out)
    rows = torch.randint(0, 256, (num_rows, num_in), dtype=torch.uint8, generator=generator)
    weight = torch.randint(-127, 128, (num_out, num_in), dtype=torch.int8, generator=generator)
    return rows, weight, torch.rand(num_out, generator=generator)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("num_in", [48, 64, 192])
@pytest.mark.parametrize("num_out", [16, 40, 144])
@pytest.mark.parametrize("num_rows", [0, 1, 3, 16, 17, 32, 50, 96])
def test_product_is_the_exact_sum_times_the_scale(num_rows: int, num_out: int, num_in: int) -> None:
    """To the last bit, whichever blocks rows and outputs are taken in."""
    rows, weight, scale = draw(num_rows, num_out, num_in)
    memory = byte_blocks.Memory(byte_blocks.packed_bytes(num_out, num_in))

    found = ByteWeights(weight, scale, memory).multiply(rows, torch.empty(num_rows, num_out))

    exact = (rows.int() - ZERO_POINT) @ weight.int().T
    assert torch.equal(found, exact.float() * scale)


def test_weights_share_memory_and_keep_it() -> None:
    """Each lies where the one before ends, and stays when the others are gone."""
    rows, first, scale = draw(2, 32, 64)
    second = draw(3, 32, 64)[1]
    memory = byte_blocks.Memory(2 * byte_blocks.packed_bytes(32, 64))
    packed = [ByteWeights(weight, scale, memory) for weight in (first, second)]
    between = packed[1].address - packed[0].address
    kept = packed.pop()

    packed.clear()
    found = kept.multiply(rows, torch.empty(2, 32))

    assert between == 32 * 64
    assert torch.equal(found, ((rows.int() - ZERO_POINT) @ second.int().T).float() * scale)
