"""A tiny random model of each family that the engine runs, and random PEFT adapters for it."""

import copy
from pathlib import Path
from typing import Any

import tiny_models
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from loraland_models import balancing, int8, weights
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

SIZES: dict[str, Any] = {
    "vocab_size": tiny_models.VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "eos_token_id": tiny_models.EOS_ID,
    "bos_token_id": 256,
    "pad_token_id": 258,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "llama-with-biases": LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True),
    "llama-3-rope": LlamaConfig(**GROUPED, rope_parameters=LLAMA_3_ROPE),
    "mistral": MistralConfig(**GROUPED, head_dim=32, sliding_window=None),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED, head_dim=32),
    "gemma": GemmaConfig(**GROUPED, head_dim=16),
    "phi": PhiConfig(**SIZES),
}
# Those that have a forward pass of ours.
FUSED = tuple(name for name in FAMILIES if name not in ("gemma", "phi"))


def build(family: str, precision: str = "float32") -> Any:
    """Return the same random model each time, at a precision by its label."""
    torch.manual_seed(1)
    # A copy: whoever runs the model may set things in its configuration.
    model = AutoModelForCausalLM.from_config(copy.deepcopy(FAMILIES[family])).eval()
    for parameter in model.parameters():
        # Norms and biases of a new model are ones and zeros: nothing would show if they were lost.
        if parameter.dim() == 1:
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
    if precision == "int8":
        int8.quantize_linears(model, balance(model))
    if precision == "nf4":
        _quantize_nf4(model)
    return model.to(weights.TORCH_DTYPES[precision]) if precision in ("bf16", "fp16") else model


def balance(model: Any) -> dict[str, balancing.Factors]:
    """Do what loading does before it quantizes to int8."""
    return balancing.balance(model, balancing.samples(tiny_models.ByteTokenizer()))


def _quantize_nf4(model: Any) -> None:
    """Do in memory what Transformers does when it loads: every linear but the head."""
    for name, linear in list(model.named_modules()):
        if isinstance(linear, torch.nn.Linear) and linear is not model.get_output_embeddings():
            has_bias = linear.bias is not None
            quantized = Linear4bit(
                linear.in_features, linear.out_features, bias=has_bias,
                compute_dtype=torch.float32, quant_type="nf4",
            )  # fmt: skip
            quantized.weight = Params4bit(
                linear.weight.data, requires_grad=False, quant_type="nf4", module=quantized
            )
            quantized.bias = linear.bias
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, quantized.to("cpu"))
    weights.keep_compute_dtype(model)


def write_adapter(folder: Path, model: Any, *, rank: int, size: float = 0.1, **config: Any) -> Path:
    """Write a random adapter as PEFT does; the model is wrapped and of no further use."""
    settings = {"r": rank, "target_modules": "all-linear"} | config
    wrapped = get_peft_model(model, LoraConfig(**settings))
    generator = torch.Generator().manual_seed(rank)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(size * torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(str(folder))
    return folder
