"""What the engine's logits should be: Transformers and PEFT in float32, and what rounding does to them.

A precision's limit is not chosen. It comes from these models: the same adapter over the same base in
plain torch, once in float32 and once with its numbers rounded as the precision rounds them. How far
apart the two are is what the rounding costs, and the engine may not be much further away. NF4 rounds
the weights alone, so that the float32 model over the rounded weights is its reference itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bitsandbytes
import torch
from loraland_models import balancing, int8
from loraland_models.balancing import Factors
from parity_runs import Answer
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

# What the order of sums in float32 leaves, through all layers of a model. A product of D terms is off
# by about sqrt(D) / 2**24, that is 1e-6; a model of random weights makes ten times that of it.
FLOAT32_LIMIT = 1e-4
FLOAT32_LIMIT_BETWEEN = 1e-5
# Two samples of one noise, the plain model's and the engine's: their largest values differ as well.
NOISE_RATIO = 2.0
ROUNDED = ("bf16", "fp16", "int8")


@dataclass(frozen=True)
class Expected:
    """Logits along one answer; ``rounded`` where the precision rounds more than weights."""

    exact: Tensor
    merged: Tensor
    rounded: Tensor | None

    @property
    def noise(self) -> float:
        """What rounding moves, as a share of the largest logit."""
        return 0.0 if self.rounded is None else gap(self.rounded, self.exact)


class Reference:
    """``build`` returns the base model at a precision, ``balance`` does what int8 begins with.

    Over int8, ``rounds_adapters`` says whether A and B are rounded as well.
    """

    def __init__(
        self,
        build: Callable[[str], Any],
        precision: str,
        *,
        balance: Callable[[Any], dict[str, Factors]],
        rounds_adapters: bool,
    ) -> None:
        self._build = build
        self._balance = balance
        self._precision = precision
        self._rounds_adapters = rounds_adapters and precision == "int8"

    def expect(self, adapter: str, prompts: list[list[int]], found: list[Answer]) -> list[Expected]:
        """Follow the engine's own tokens with each of the models."""
        exact = self._follow(with_adapter(self._exact(), adapter), prompts, found)
        model = with_adapter(self._exact(), adapter)
        merged = self._follow(model.merge_and_unload() if adapter else model, prompts, found)
        rounded: list[Tensor | None] = [None] * len(prompts)
        if self._precision in ROUNDED:
            rounded = [*self._follow(self._rounded(adapter), prompts, found)]
        return [Expected(*parts) for parts in zip(exact, merged, rounded, strict=True)]

    def _exact(self) -> Any:
        model = self._build("float32")
        return dequantized(model, self._build("nf4")) if self._precision == "nf4" else model

    def _rounded(self, adapter: str) -> Any:
        if self._precision != "int8":
            return with_adapter(self._build(self._precision), adapter)
        base = self._build("float32")
        factors = self._balance(base)
        model = with_adapter(base, adapter)
        if adapter:
            balancing.adapt_wrapped(model, factors)
        if self._rounds_adapters:
            round_adapter(model)
        return round_linears(model)

    def _follow(self, model: Any, prompts: list[list[int]], found: list[Answer]) -> list[Tensor]:
        logits = []
        for prompt, answer in zip(prompts, found, strict=True):
            ids = torch.tensor([[*prompt, *answer.token_ids[:-1]]])
            with torch.inference_mode():
                logits.append(model(input_ids=ids).logits[0, len(prompt) - 1 :].float())
        return logits


class RoundedLinear(nn.Linear):
    """A float32 linear over numbers that are rounded to eight bits: weights by channel, rows by row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.weight.data = _rounded_rows(linear.weight.data)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = int8.quantize_rows(x.reshape(-1, self.in_features))
        rounded = ((rows.float() - int8.ZERO_POINT) * scale).view(x.shape)
        return functional.linear(rounded, self.weight, self.bias)


def round_linears(model: Any) -> Any:
    """Put a ``RoundedLinear`` in the place of every linear of the base, the head among them."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and "lora_" not in name:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, RoundedLinear(module))
    return model


def round_adapter(model: Any) -> None:
    """Round A and B of PEFT's layers to eight bits, one scale a rank each."""
    for layer in (m for m in model.modules() if isinstance(m, LoraLayer)):
        for part in layer.lora_A.values():
            part.weight.data = _rounded_rows(part.weight.data)
        for part in layer.lora_B.values():
            part.weight.data = _rounded_rows(part.weight.data.t()).t().contiguous()


def dequantized(model: Any, quantized: Any) -> Any:
    """Give a float32 model the weights that a 4-bit one stands for."""
    for name, module in quantized.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(
                module.weight.data, module.weight.quant_state
            )
            model.get_submodule(name).weight.data = weight.float()
    return model


def with_adapter(model: Any, adapter: str) -> Any:
    return PeftModel.from_pretrained(model, adapter).eval() if adapter else model


def gap(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest logit."""
    return float((found - expected).abs().max() / expected.abs().max())


def _rounded_rows(weight: Tensor) -> Tensor:
    rounded, scale = int8.quantize_weight(weight)
    return rounded.float() * scale[:, None]
