"""The optimizer that a job's spec asks for: AdamW, paged or not, with LoRA+'s two rates. No I/O.

Source of LoRA+: Hayou, Ghosh, Yu 2024, arXiv:2402.12354; of paged 8-bit states: Dettmers et al. 2023,
arXiv:2305.14314.
"""

from typing import Any

import torch
from loraland_core.errors import InvalidInput
from loraland_core.resources.finetunejob import LoraSpec, TrainingSpec
from torch import nn
from torch.optim import Optimizer

PAGED = "PagedAdamW8bit"


def build(
    model: nn.Module, training: TrainingSpec, lora: LoraSpec, *, is_quantized: bool
) -> Optimizer:
    """Return the optimizer of the adapter's matrices; nothing decays, as in the paper."""
    rate, ratio = float(training.learning_rate), float(lora.learning_rate_ratio)
    groups = [{"params": [], "lr": rate}, {"params": [], "lr": rate * ratio}]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[int(ratio != 1 and "lora_B" in name)]["params"].append(parameter)  # type: ignore[attr-defined]
    used: list[dict[str, Any]] = [group for group in groups if group["params"]]
    if choose(training.optimizer, is_quantized=is_quantized) == PAGED:
        # Imported here: it looks for GPU libraries.
        from bitsandbytes.optim import PagedAdamW8bit  # noqa: PLC0415

        paged: Optimizer = PagedAdamW8bit(used, lr=rate, weight_decay=0.0)
        return paged
    # One kernel for all matrices instead of a dozen operations for each.
    return torch.optim.AdamW(used, lr=rate, weight_decay=0.0, fused=True)


def choose(wish: str, *, is_quantized: bool) -> str:
    """Return AdamW or the paged one; raise ``InvalidInput`` where that cannot be had."""
    has_gpu = torch.cuda.is_available()
    if wish == PAGED and not has_gpu:
        raise InvalidInput(
            "paged 8-bit states need a GPU, and this pod has none; use AdamW or Auto",
            field="spec.training.optimizer",
        )
    if wish == "Auto":
        return PAGED if has_gpu and is_quantized else "AdamW"
    return wish
