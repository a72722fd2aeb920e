"""The bound of an engine process's memory, computed by hand."""

from pathlib import Path

import footprint
import torch
from footprint import ALLOWANCE_BYTES, Parts
from workload import Workload

WORK = Workload(concurrency=4, num_requests=4, num_adapters=2, input_tokens=40, output_tokens=10)


def test_bound_adds_up_its_parts() -> None:
    """Keys and values are those of running requests, and the whole blocks of prompts that are kept."""
    found = Parts(1000, 200, 30, 2).describe(5000, workload=WORK, max_running=4, num_prompts=3)

    kv_bytes = (4 * 50 + 3 * 32) * 2
    assert found["kv_bytes"] == kv_bytes
    assert found["bound_bytes"] == 1230 + kv_bytes + ALLOWANCE_BYTES
    assert found["beyond_parts_bytes"] == 5000 - 1230 - kv_bytes


def test_shared_weights_count_once() -> None:
    """An output head that is the embedding takes no memory of its own."""
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
    )
    model[1].weight = model[0].weight

    assert footprint.weight_bytes(model) == 64


def test_adapters_count_at_the_precision_they_are_kept_at(tmp_path: Path) -> None:
    """Files hold two bytes a number, slots over int8 weights one."""
    (tmp_path / "adapter_model.safetensors").write_bytes(bytes(100))

    assert footprint.adapter_bytes([tmp_path], item_bytes=1) == 50
