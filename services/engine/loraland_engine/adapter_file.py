"""Reads an adapter from a folder of PEFT files. Files only; the caller names the folder.

Everything read is untrusted: sizes, shapes and names are checked against the base model before any
tensor is made. Only safetensors are read. What is not supported is refused by name, never ignored.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from loraland_core import artifacts, safetensors_header
from loraland_core.errors import ArtifactInvalid
from safetensors.torch import load_file

from loraland_engine.lora import LoraAdapter, LoraWeights

MAX_CONFIG_BYTES = 256 * 1024
_KEY = re.compile(r"^base_model\.model\.(?P<module>[\w.]+)\.lora_(?P<part>[AB])\.weight$")
_PLAIN_NAME = re.compile(r"^[\w.]+$")
# PEFT settings that change what an adapter computes and that the engine does not compute.
_REFUSED = (
    "use_dora",
    "modules_to_save",
    "lora_bias",
    "trainable_token_indices",
    "layer_replication",
    "megatron_config",
    "target_parameters",
    "use_qalora",
    "corda_config",
    "alora_invocation_tokens",
)


@dataclass(frozen=True)
class AdapterConfig:
    """The part of ``adapter_config.json`` that decides the scaling."""

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rs_lora: bool

    def rank_of(self, module: str) -> int:
        return int(_by_suffix(self.rank_pattern, module, self.rank))

    def scaling_of(self, module: str) -> float:
        rank = self.rank_of(module)
        alpha = _by_suffix(self.alpha_pattern, module, self.alpha)
        return alpha / math.sqrt(rank) if self.rs_lora else alpha / rank


def load_adapter(
    folder: Path,
    linears: Mapping[str, tuple[int, int]],
    *,
    max_rank: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoraAdapter:
    """Return the adapter; raise ``ArtifactInvalid`` naming what is wrong.

    ``linears`` maps the base model's module names to (in, out).
    """
    config = read_config(folder / artifacts.CONFIG_FILE)
    weights_path = folder / artifacts.WEIGHTS_FILE
    header = safetensors_header.read(weights_path)
    shapes = {name: entry.shape for name, entry in header.items()}
    parts = _pair(shapes)
    for module, (a_shape, b_shape) in parts.items():
        _check_module(module, a_shape, b_shape, linears, config=config, max_rank=max_rank)
    tensors = load_file(weights_path, device="cpu")
    weights = {}
    for module in parts:
        a = _finite(tensors, f"base_model.model.{module}.lora_A.weight")
        b = _finite(tensors, f"base_model.model.{module}.lora_B.weight")
        scaled = (b * config.scaling_of(module)).t().contiguous()
        weights[module] = LoraWeights(a.to(device, dtype).contiguous(), scaled.to(device, dtype))
    return LoraAdapter(weights, rank=max(w.a_RD.shape[0] for w in weights.values()))


def read_config(path: Path) -> AdapterConfig:
    name = artifacts.CONFIG_FILE
    document = _read_json(path, name)
    if document.get("peft_type") != "LORA":
        raise _invalid(name, f"peft_type is {document.get('peft_type')!r}; only LORA is served")
    for setting in _REFUSED:
        if document.get(setting):
            raise _invalid(name, f"{setting} is set, which is not supported")
    if document.get("bias", "none") != "none":
        raise _invalid(name, f"bias is {document['bias']!r}; only 'none' is supported")
    rank, alpha = document.get("r"), document.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise _invalid(name, f"r is {rank!r}; expected a positive integer")
    if not _is_number(alpha):
        raise _invalid(name, f"lora_alpha is {alpha!r}; expected a number")
    return AdapterConfig(
        rank=rank,
        alpha=float(alpha),
        rank_pattern=_pattern(document, "rank_pattern"),
        alpha_pattern=_pattern(document, "alpha_pattern"),
        rs_lora=bool(document.get("use_rslora")),
    )


def _pair(
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the shapes of A and B by module; anything that is neither is refused."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, shape in shapes.items():
        match = _KEY.match(key)
        if match is None:
            raise _invalid(artifacts.WEIGHTS_FILE, f"tensor {key[:200]!r} is not supported")
        found.setdefault(match["module"], {})[match["part"]] = shape
    if not found:
        raise _invalid(artifacts.WEIGHTS_FILE, "holds no tensors")
    for module, parts in found.items():
        if len(parts) != 2:
            raise _invalid(artifacts.WEIGHTS_FILE, f"{module} has only one of lora_A and lora_B")
    return {module: (parts["A"], parts["B"]) for module, parts in found.items()}


def _check_module(
    module: str,
    a_shape: tuple[int, ...],
    b_shape: tuple[int, ...],
    linears: Mapping[str, tuple[int, int]],
    *,
    config: AdapterConfig,
    max_rank: int,
) -> None:
    name = artifacts.WEIGHTS_FILE
    if module not in linears:
        raise _invalid(name, f"the base model has no linear {module!r}", reason="BaseModelMismatch")
    num_in, num_out = linears[module]
    rank = config.rank_of(module)
    if rank > max_rank:
        raise _invalid(
            artifacts.CONFIG_FILE,
            f"rank {rank} is over this server's limit of {max_rank}",
            reason="RankOverLimit",
        )
    if a_shape != (rank, num_in) or b_shape != (num_out, rank):
        raise _invalid(
            name,
            f"{module}: shapes {list(a_shape)} and {list(b_shape)} do not fit"
            f" rank {rank} and a linear of {num_in} to {num_out}",
            reason="BaseModelMismatch",
        )


def _finite(tensors: Mapping[str, torch.Tensor], key: str) -> torch.Tensor:
    tensor = tensors[key].to(torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        raise _invalid(artifacts.WEIGHTS_FILE, f"{key} holds values that are not finite")
    return tensor


def _pattern(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a rank or alpha pattern. PEFT reads its keys as expressions; we take plain names."""
    pattern = document.get(name) or {}
    if not isinstance(pattern, dict):
        raise _invalid(artifacts.CONFIG_FILE, f"{name} is not a table")
    for key, value in pattern.items():
        if not _PLAIN_NAME.match(key):
            raise _invalid(artifacts.CONFIG_FILE, f"{name}: {key[:100]!r} is not a module name")
        if not _is_number(value) or value < 0:
            raise _invalid(artifacts.CONFIG_FILE, f"{name}: {key} is {value!r}, not a number")
    return pattern


def _by_suffix(pattern: Mapping[str, float], module: str, default: float) -> float:
    dotted = f".{module}"
    return next((v for key, v in pattern.items() if dotted.endswith(f".{key}")), default)


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise _invalid(name, f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise _invalid(name, f"is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        document = json.loads(data)
    except ValueError as error:
        raise _invalid(name, f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _invalid(name, "is not a JSON object")
    return document


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _invalid(name: str, message: str, *, reason: str = "ArtifactInvalid") -> ArtifactInvalid:
    return ArtifactInvalid(message, field=name, reason=reason)
