"""Adapters from PEFT files: what is read, and what is refused by name."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from loraland_core.errors import ArtifactInvalid
from loraland_engine.adapter_file import load_adapter
from safetensors.torch import load_file, save_file

LINEARS = {
    name: (module.in_features, module.out_features)
    for name, module in tiny_models.build_llama().named_modules()
    if isinstance(module, torch.nn.Linear)
}
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FIRST_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def load(folder: Path, max_rank: int = 16) -> Any:
    return load_adapter(folder, LINEARS, max_rank=max_rank)


def set_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def set_tensor(key: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        save_file(load_file(folder / WEIGHTS) | {key: tensor}, folder / WEIGHTS)

    return change


def write_bytes(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def header(entry: dict[str, Any]) -> bytes:
    text = json.dumps({FIRST_A: entry}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "dora": (set_config(use_dora=True), "use_dora"),
    "modules-to-save": (set_config(modules_to_save=["lm_head"]), "modules_to_save"),
    "bias": (set_config(bias="all"), "bias"),
    "not-lora": (set_config(peft_type="IA3"), "peft_type"),
    "rank-text": (set_config(r="8"), "r is '8'"),
    "rank-pattern-expression": (set_config(rank_pattern={"(a+)+$": 2}), "rank_pattern"),
    "rank-disagrees": (set_config(r=5), "rank 5"),
    "config-not-json": (write_bytes(CONFIG, b"{"), "not JSON"),
    "not-finite": (set_tensor(FIRST_A, torch.full((4, 64), float("nan"))), "not finite"),
    "shape": (set_tensor(FIRST_A, torch.zeros(4, 65)), "do not fit"),
    "unknown-linear": (
        set_tensor(FIRST_A.replace("layers.0", "layers.9"), torch.zeros(4, 64)),
        "only one of",
    ),
    "embedding": (set_tensor("base_model.model.lora_embedding_A", torch.zeros(4, 64)), "supported"),
    "integers": (set_tensor(FIRST_A, torch.zeros(4, 64, dtype=torch.int64)), "dtype I64"),
    "header-size": (write_bytes(WEIGHTS, struct.pack("<Q", 2**40) + b"{}"), "header claims"),
    "header-text": (write_bytes(WEIGHTS, struct.pack("<Q", 2) + b"[[" + bytes(8)), "not JSON"),
    "header-empty": (write_bytes(WEIGHTS, b""), "header claims"),
    "outside": (
        write_bytes(WEIGHTS, header({"dtype": "F32", "shape": [4, 64], "data_offsets": [0, 1024]})),
        "outside the file",
    ),
    "size-lie": (
        write_bytes(WEIGHTS, header({"dtype": "F32", "shape": [4, 64], "data_offsets": [0, 16]})),
        "disagree",
    ),
    "malformed": (write_bytes(WEIGHTS, header({"dtype": "F32"})), "malformed"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_load_adapter_refuses_what_it_cannot_serve(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    """Each fault is an ``ArtifactInvalid`` that names it."""
    folder = tiny_models.write_adapter(tmp_path, seed=1)
    change(folder)

    with pytest.raises(ArtifactInvalid, match=words):
        load(folder)


def test_load_adapter_refuses_a_rank_when_it_is_over_the_limit(tmp_path: Path) -> None:
    """The reason is one of its own, for conditions."""
    folder = tiny_models.write_adapter(tmp_path, seed=1, rank=8)

    with pytest.raises(ArtifactInvalid) as caught:
        load(folder, max_rank=4)

    assert caught.value.reason == "RankOverLimit"


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({"lora_alpha": 12}, 3.0),
        ({"lora_alpha": 12, "use_rslora": True}, 6.0),
        ({"lora_alpha": 12, "alpha_pattern": {"q_proj": 2}}, 0.5),
    ],
    ids=["plain", "rank-stabilized", "alpha-pattern"],
)
def test_load_adapter_folds_the_scaling_into_b(
    tmp_path: Path, config: dict[str, Any], scaling: float
) -> None:
    """B is alpha / rank times what the file holds, as PEFT computes it."""
    folder = tiny_models.write_adapter(tmp_path, seed=1, rank=4, **config)

    adapter = load(folder)

    stored = load_file(folder / WEIGHTS)[FIRST_A.replace("lora_A", "lora_B")]
    weights = adapter.weights["model.layers.0.self_attn.q_proj"]
    torch.testing.assert_close(weights.b_RO, (stored * scaling).t())
