"""Random adapters as PEFT writes them, for benchmarks: right in size and shape, of no meaning."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from loraland_core import artifacts
from safetensors.torch import save_file

# Large enough to change tokens, small enough to leave the model fluent.
SCALE = 0.02
_SKIPPED = "lm_head"


def find_linears(model: Any) -> dict[str, tuple[int, int]]:
    """Return (in, out) of every linear but the output head, by name."""
    return {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if hasattr(module, "in_features") and not name.endswith(_SKIPPED)
    }


def ensure_adapters(
    folder: Path,
    linears: dict[str, tuple[int, int]] | Callable[[], dict[str, tuple[int, int]]],
    *,
    count: int,
    ranks: list[int],
    base: str,
) -> list[Path]:
    """Return ``count`` PEFT folders, writing those that are missing; ranks take turns.

    Linears that are costly to find are asked for only where something is missing.
    """
    found = sorted(p.parent for p in folder.glob(f"*/{artifacts.CONFIG_FILE}"))
    if callable(linears) and len(found) < count:
        linears = linears()
    for index in range(len(found), count):
        assert not callable(linears)
        found.append(_write(folder / f"adapter-{index:03d}", linears, index, ranks, base))
    return found[:count]


def _write(
    folder: Path, linears: dict[str, tuple[int, int]], index: int, ranks: list[int], base: str
) -> Path:
    rank = ranks[index % len(ranks)]
    generator = torch.Generator().manual_seed(index)
    tensors = {}
    for name, (num_in, num_out) in linears.items():
        key = f"base_model.model.{name}"
        a = torch.randn(rank, num_in, generator=generator) / math.sqrt(num_in)
        b = torch.randn(num_out, rank, generator=generator) * SCALE
        tensors[f"{key}.lora_A.weight"] = a.bfloat16()
        tensors[f"{key}.lora_B.weight"] = b.bfloat16()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / artifacts.WEIGHTS_FILE)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({name.rpartition(".")[2] for name in linears}),
    }
    # Last, so that a folder that has it is complete.
    (folder / artifacts.CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    return folder
