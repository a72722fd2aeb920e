"""Rows of prompts get their adapter's update as plain products say, whatever the shapes; float32."""

from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import tiny_models
import torch
from loraland_engine import prompt_lora
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.linear import pack_adapter
from loraland_engine.lora import LoraAdapter, LoraWeights
from loraland_engine.sequence import SamplingParams

OUTS = (48, 20, 101)
START = np.array([0, *np.cumsum(OUTS)], dtype=np.int64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8], ids=str)
@pytest.mark.parametrize("ranks", [(16, 16, 16), (3, 0, 8), (0, 0, 1), (64, 5, 0)], ids=str)
@pytest.mark.parametrize("count", [5, 8, 11, 16])
def test_tile_gets_its_update(count: int, ranks: tuple[int, ...], dtype: torch.dtype) -> None:
    """Any number of rows, ranks and outs; parts without an adapter and other rows stay as they are."""
    generator = torch.Generator().manual_seed(1)
    width, first = 96, 3
    x = torch.randn(first + count + 2, width, generator=generator)
    y = torch.randn(len(x), sum(OUTS), generator=generator)
    scale = torch.rand(len(x), generator=generator) + 0.5
    adapter = LoraAdapter(
        {
            str(part): LoraWeights(
                torch.randn(rank, width, generator=generator),
                torch.randn(rank, num_out, generator=generator),
            )
            for part, (rank, num_out) in enumerate(zip(ranks, OUTS, strict=True))
            if rank
        },
        rank=max(ranks),
    )
    packed = pack_adapter(adapter, dtype)
    found = y.clone()

    prompt_lora.add_tile(
        found.numpy(), x.numpy(), scale.numpy(), first, count, table(packed), START,
        torch.empty(0, dtype=dtype).numpy(),
    )  # fmt: skip

    rows = slice(first, first + count)
    expected = y.clone()
    for name, own in packed.weights.items():
        assert own.scale_R is not None
        h = x[rows].double() @ own.a_RD.double().t() * own.scale_R.double()
        columns = slice(int(START[int(name)]), int(START[int(name) + 1]))
        expected[rows, columns] += (h @ own.b_RO.double() / scale[rows, None].double()).float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def table(adapter: LoraAdapter) -> np.ndarray:
    rows = np.zeros((len(OUTS), 4), dtype=np.int64)
    for name, own in adapter.weights.items():
        assert own.scale_R is not None
        addresses = own.a_RD.data_ptr(), own.b_RO.data_ptr()
        rows[int(name)] = (*addresses, own.a_RD.shape[0], own.scale_R.data_ptr())
    return rows


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters of mixed ranks, with a rank of its own for a part, and on some parts only."""
    root = tmp_path_factory.mktemp("adapters")
    settings: dict[str, dict[str, Any]] = {
        "eight": {"rank": 8},
        "three": {"rank": 3},
        "pattern": {"rank": 4, "rank_pattern": {"v_proj": 2, "down_proj": 7}},
        "some": {"rank": 5, "target_modules": ["q_proj", "up_proj"]},
    }
    return {
        name: families.write_adapter(root / name, families.build("llama"), **options)
        for name, options in settings.items()
    }


def scores(
    precision: str, folders: dict[str, Path], step_tokens: int, **config: Any
) -> list[float]:
    """Score prompts of several lengths with each adapter and without, all at once."""
    options = EngineConfig(
        max_running=8, max_step_tokens=step_tokens, context_tokens=192, num_slots=len(folders),
        prefix_cache=False, **config,
    )  # fmt: skip
    model = families.build("llama", precision)
    engine = Engine(model, tiny_models.ByteTokenizer(), options)
    for name, folder in folders.items():
        engine.insert_adapter(name, engine.read_adapter(folder))
    texts = [bytes(range(32, 32 + length)) for length in (5, 23, 90)]
    requests = [(name, text) for text in texts for name in ["", *folders]]
    for index, (name, text) in enumerate(requests):
        engine.submit_score(str(index), list(text), [list(b"and so on")], adapter_id=name)
    engine.submit("busy", list(b"decodes"), SamplingParams(max_tokens=9, ignore_eos=True))
    found = {}
    while engine.has_work():
        found |= {o.request_id: o.logprob for o in engine.step() if o.request_id != "busy"}
    engine.close()
    return [found[str(index)] for index in range(len(requests))]


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("step_tokens", [8, 11, 64, 256])
def test_scores_do_not_depend_on_the_size_of_chunks(
    folders: dict[str, Path], precision: str, step_tokens: int
) -> None:
    """Prompts of mixed adapters in one step, in any pieces; over int8 a value may round otherwise."""
    whole = scores(precision, folders, 1024)

    found = scores(precision, folders, step_tokens)

    np.testing.assert_allclose(found, whole, rtol=1e-5 if precision == "float32" else 1e-2)


def test_scores_are_those_of_the_models_own_class(folders: dict[str, Path]) -> None:
    """Compiled tiles against Transformers' linears with plain products on top; float32."""
    expected = scores("float32", folders, 64, fused=False)

    found = scores("float32", folders, 64)

    np.testing.assert_allclose(found, expected, rtol=1e-4)
