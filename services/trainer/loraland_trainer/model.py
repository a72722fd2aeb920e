"""The base model with a fresh adapter on it: PEFT's LoRA over frozen weights."""

from pathlib import Path
from typing import Any

import torch
from loraland_core.errors import InvalidInput
from loraland_core.resources.finetunejob import LoraSpec
from loraland_models import balancing, int8, weights
from loraland_models.sources import ResolvedModel
from loraland_models.weights import Precision
from peft import LoraConfig, PeftModel, get_peft_model

ALL_LINEAR = "all-linear"


def attach_adapter(base_model: Any, spec: LoraSpec) -> Any:
    """Return the model with a trainable adapter; its B is zero, so it answers as the base does."""
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=float(spec.dropout),
        target_modules=target_modules(base_model, spec.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base_model, config)


def load_served(base_model: ResolvedModel, serving: Precision, directory: Path) -> Any:
    """Return base model and saved adapter at the serving precision, for evaluation."""
    if serving.quantization != "int8":
        base = weights.load_model(base_model, serving)
        return PeftModel.from_pretrained(base, directory, is_trainable=False).eval()
    # PEFT puts adapters on plain linears only; what they stand on is quantized afterwards.
    plain = Precision(dtype=serving.dtype, quantization="none")
    weights.check_precision(base_model.name, serving)
    base = weights.load_model(base_model, plain)
    factors = balancing.balance(base, balancing.samples(weights.load_tokenizer(base_model)))
    tuned = PeftModel.from_pretrained(base, directory, is_trainable=False).eval()
    balancing.adapt_wrapped(tuned, factors)
    for name, module in list(tuned.named_modules()):
        if isinstance(module, torch.nn.Linear) and "lora_" not in name:
            parent, _, child = name.rpartition(".")
            setattr(tuned.get_submodule(parent), child, int8.Int8Linear(module))
    return tuned


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
