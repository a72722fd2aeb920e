"""The base model with a fresh adapter on it: PEFT's LoRA over frozen weights."""

from typing import Any

import torch
from loraland_core.errors import InvalidInput
from loraland_core.resources.finetunejob import LoraSpec
from peft import LoraConfig, get_peft_model

ALL_LINEAR = "all-linear"


def attach_adapter(base_model: Any, spec: LoraSpec) -> Any:
    """Return the model with a trainable adapter; its B is zero, so it answers as the base does."""
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=float(spec.dropout),
        use_rslora=spec.rs_lora,
        target_modules=target_modules(base_model, spec.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base_model, config)


def target_modules(base_model: torch.nn.Module, names: list[str]) -> str | list[str]:
    """Return PEFT's argument; a name that no linear module has is refused with the present ones."""
    if names == [ALL_LINEAR]:
        return ALL_LINEAR
    head = base_model.get_output_embeddings()  # type: ignore[operator]
    present = {
        name.rsplit(".", 1)[-1]
        for name, module in base_model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    unknown = [name for name in names if name not in present]
    if unknown or not names:
        raise InvalidInput(
            f"no linear module is named {unknown[0] if unknown else ''!r}; present:"
            f" {', '.join(sorted(present))}; {ALL_LINEAR} stands for every one",
            field="spec.lora.targetModules",
        )
    return sorted(names)
