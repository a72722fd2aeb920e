"""Weights and tokenizer into memory, at a precision of the catalogue. Imports torch.

No code that comes with a model is ever run, and nothing pickled is read.
"""

from dataclasses import dataclass
from typing import Any

import torch
from loraland_core.catalogue import BaseModelEntry, Dtype, Quantization
from loraland_core.errors import InvalidInput
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from loraland_models import allocation, balancing, int8
from loraland_models.sources import ResolvedModel

TORCH_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """``dtype`` is what is computed in; ``quantization`` how the linear layers are stored."""

    dtype: Dtype
    quantization: Quantization

    @property
    def label(self) -> str:
        """One word, as manifests and reports print it."""
        return self.dtype if self.quantization == "none" else self.quantization


def training_precision(entry: BaseModelEntry, method: str) -> Precision:
    """Return what a job of this method trains over."""
    quantization = entry.training.qlora_quantization if method == "QLoRA" else "none"
    return Precision(dtype=entry.training.dtype, quantization=quantization)


def serving_precision(entry: BaseModelEntry) -> Precision:
    """Return what replicas serve at, and what scores are therefore measured at."""
    return Precision(dtype=entry.serving.dtype, quantization=entry.serving.quantization)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_tokenizer(model: ResolvedModel) -> PreTrainedTokenizerBase:
    """Return the tokenizer; one without a pad token pads with its end token."""
    tokenizer = AutoTokenizer.from_pretrained(
        model.directory, trust_remote_code=False, local_files_only=True
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.eos_token_id is None:
        raise InvalidInput(
            "its tokenizer has no end token, so that no answer would ever end",
            field=model.name,
            reason="BaseModelUnavailable",
        )
    return tokenizer


@allocation.large_apart()
def load_model(
    model: ResolvedModel, precision: Precision, *, device: str | None = None
) -> PreTrainedModel:
    """Return the base model in evaluation mode."""
    where = device or default_device()
    check_precision(model.name, precision, where)
    transformers_logging.disable_progress_bar()
    options: dict[str, Any] = {}
    if precision.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=TORCH_DTYPES[precision.dtype],
        )
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        model.directory,
        dtype=TORCH_DTYPES[precision.dtype],
        device_map={"": where},
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        **options,
    )
    if where == "cpu" and precision.quantization == "nf4":
        keep_compute_dtype(loaded)
    if precision.quantization == "int8":
        factors = balancing.balance(loaded, balancing.samples(load_tokenizer(model)))
        int8.quantize_linears(loaded, factors)
    if where == "cpu":
        _leave_file(loaded)
    return loaded.eval()


def _leave_file(model: torch.nn.Module) -> None:
    """Copy the parameters into memory: any one that still lies in the file keeps all of it mapped.

    Of a model quantized to int8 only the embedding does, and of others what is not joined later.
    """
    for parameter in model.parameters():
        if type(parameter) is torch.nn.Parameter:
            parameter.data = parameter.data.clone()


def check_precision(name: str, precision: Precision, device: str | None = None) -> None:
    """Raise ``InvalidInput`` for a precision that cannot be loaded here."""
    device = device or default_device()
    where = device or default_device()
    if precision.quantization == "int8" and not where.startswith("cpu"):
        raise InvalidInput(
            f"int8 weights are computed on CPUs only, and this is {where}; use nf4 or none",
            field=f"{name}.quantization",
            reason="BaseModelUnavailable",
        )


def keep_compute_dtype(model: torch.nn.Module) -> None:
    """Hold bitsandbytes to the compute dtype that was asked for.

    On a CPU with AVX512-BF16, the first evaluation step otherwise repacks each weight for a kernel
    that computes in bf16 whatever was asked for and has no backward: training after an evaluation
    would silently lose the gradient through the base, and scores would depend on the CPU's model.
    Seen in bitsandbytes 0.50.2, ``nn/modules.py``, ``Linear4bit.forward``.
    """
    name = "support_avx512bf16_for_cpu"
    for module in model.modules():
        if hasattr(module, name):
            setattr(module, name, False)
