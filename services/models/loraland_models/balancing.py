"""Evens out what a model's linears read before it is rounded to eight bits. Pure but for the model.

In models shaped like Llama a few channels are many times as large as the others, the same ones for
every token. A row is rounded by its largest value, so that beside them little is left of the rest.
Therefore each channel is divided by a factor, and the weights that read it are multiplied by it: the
product stays, and both sides of it are even. Nothing is divided while the model runs: the factors go
into the norms' weights, and into the rows of the up projection, each of which has its own scale anyway.

An adapter knows the channels as they were; ``adapt`` gives it the factors.

Shapes: D in, N out, R rank. Source: Xiao et al. 2023, SmoothQuant, arXiv:2211.10438.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# What the channels' sizes are taken from: prose, code, JSON, questions, lists, speech. The first token
# of a sequence is the odd one, so each line is read by itself as well.
TEXT = """\
The committee met on Tuesday, and after three hours of debate it agreed to publish its report in March.
def area(width: float, height: float) -> float: return width * height
{"name": "desk lamp", "price": 24.50, "tags": ["home", "light"], "in_stock": true}
Question: Why does ice float on water? Answer: Because water expands when it freezes.
- First, preheat the oven to 180 degrees; then mix flour, sugar and two eggs.
"Are you sure?" she asked. He wasn't, but it was too late to turn back now."""
_SMALLEST = 1e-5
_LARGEST_FACTOR = 1e4


@dataclass(frozen=True)
class Factors:
    """A linear's inputs are divided by ``input_D``, its outputs by ``output_N``."""

    input_D: Tensor | None = None
    output_N: Tensor | None = None


def samples(tokenizer: Any) -> list[list[int]]:
    """Return the text to read, in tokens: as a whole, and each line."""
    return [list(tokenizer.encode(text)) for text in (TEXT, *TEXT.splitlines())]


# Factors that knew where they come from would keep every weight that they were taken from.
@torch.no_grad()
def balance(model: Any, token_ids: Iterable[list[int]]) -> dict[str, Factors]:
    """Balance the model in place; return the factors by linear, none for other families."""
    if model.config.model_type not in FAMILIES:
        return {}
    sizes = _measure(model, token_ids)
    factors: dict[str, Factors] = {}
    body = model.model
    for index, layer in enumerate(body.layers):
        name = f"model.layers.{index}"
        attention = [f"{name}.self_attn.{part}_proj" for part in "qkv"]
        gates = [f"{name}.mlp.{part}_proj" for part in ("gate", "up")]
        down = f"{name}.mlp.down_proj"
        factors |= _balance(model, attention, layer.input_layernorm, sizes)
        factors |= _balance(model, gates, layer.post_attention_layernorm, sizes)
        factors |= _balance(model, [down], layer.mlp.up_proj, sizes)
        factors[gates[1]] = Factors(factors[gates[1]].input_D, factors[down].input_D)
    # An embedding that shares the head's weight keeps it.
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone(), requires_grad=False)
    return factors | _balance(model, ["lm_head"], body.norm, sizes)


def adapt(a_RD: Tensor, b_RO: Tensor, factors: Factors) -> tuple[Tensor, Tensor]:
    """Return an adapter's A and B for a linear that was balanced."""
    if factors.input_D is not None:
        a_RD = a_RD * factors.input_D.to(a_RD)
    if factors.output_N is not None:
        b_RO = b_RO / factors.output_N.to(b_RO)
    return a_RD, b_RO


def adapt_wrapped(tuned: nn.Module, factors: Mapping[str, Factors]) -> None:
    """Adapt the adapter that PEFT has put around a balanced model."""
    for name, own in factors.items():
        layer: Any = tuned.get_submodule(f"base_model.model.{name}")
        for key in getattr(layer, "lora_A", ()):
            a, b = layer.lora_A[key].weight, layer.lora_B[key].weight
            a_RD, b_RO = adapt(a.data, b.data.t(), own)
            a.data, b.data = a_RD, b_RO.t().contiguous()


def _measure(model: Any, token_ids: Iterable[list[int]]) -> dict[str, Tensor]:
    """Return the largest magnitude of each input channel, by linear."""
    sizes: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(linear: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
            size_D = inputs[0].reshape(-1, linear.in_features).abs().amax(0).float()
            sizes[name] = torch.maximum(sizes[name], size_D) if name in sizes else size_D

        return hook

    linears = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    hooks = [linear.register_forward_pre_hook(note(name)) for name, linear in linears]
    limit = model.config.max_position_embeddings
    try:
        with torch.inference_mode():
            for ids in token_ids:
                model(input_ids=torch.tensor([ids[:limit]]), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: size_D.clone() for name, size_D in sizes.items()}


def _balance(
    model: nn.Module, names: list[str], before: Any, sizes: Mapping[str, Tensor]
) -> dict[str, Factors]:
    """Move size from the inputs of some linears into their weights; ``before`` makes the inputs."""
    linears: list[Any] = [model.get_submodule(name) for name in names]
    weight_D = torch.stack([m.weight.abs().amax(0).float() for m in linears]).amax(0)
    ratio_D = sizes[names[0]].clamp_min(_SMALLEST) / weight_D.clamp_min(_SMALLEST)
    factor_D = (ratio_D / ratio_D.median()).sqrt().clamp(1.0, _LARGEST_FACTOR)
    for linear in linears:
        linear.weight.data = linear.weight.data * factor_D.to(linear.weight.dtype)
    for part in ("weight", "bias"):
        tensor = getattr(before, part, None)
        if tensor is not None:
            shape = (-1, *[1] * (tensor.dim() - 1))
            tensor.data = tensor.data / factor_D.to(tensor.dtype).view(shape)
    return {name: Factors(factor_D) for name in names}
