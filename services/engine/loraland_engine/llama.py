"""One fused forward pass for models shaped like Llama: Llama, Mistral, Qwen 2 and 3, SmolLM. CPU.

Computes what the Transformers class computes, with four matrix products and five compiled calls a
layer. The residual stream is float32, the linears keep their own precision, and KV memory is
bfloat16 where they are no more precise. The model's modules stay in place, with their weights joined
in memory.

Shapes: T packed tokens, D hidden, N joined outs, L context tokens, E head size, S slots.
"""

from typing import Any

import numpy as np
import torch
from loraland_models.int8 import Int8Linear
from torch import Tensor, nn

from loraland_engine import (
    decoder,
    float_blocks,
    kv_memory,
    native,
    packed_step,
    prompt_attention,
    rounding,
    row_kernels,
    tile_attention,
    tile_lora,
)
from loraland_engine.byte_blocks import Memory
from loraland_engine.kv_memory import KvMemory
from loraland_engine.linear import JOINABLE, Outputs, Projection, packed_memory, packs_halves
from loraland_engine.lora import AdapterSlots, LoraAdapter
from loraland_engine.scheduler import Chunk

_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# Rotations that depend on nothing but the position.
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
_PARTS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


def is_supported(model: Any) -> bool:
    """Whether this model, in this precision, on this machine runs through the fused pass."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        model.device.type == "cpu"
        and config.model_type in _FAMILIES
        and getattr(config, "hidden_act", "silu") == "silu"
        and rope.get("rope_type", "default") in _ROPE_TYPES
        and _group_size(config) <= float_blocks.WIDTH
        and all(_is_joinable(m) for m in model.modules() if hasattr(m, "in_features"))
    )


def kv_dtype(model: Any) -> torch.dtype:
    """Return what keys and values are kept in: no more precise than the products they come from."""
    head = model.get_output_embeddings()
    is_half = isinstance(head, Int8Linear) or head.weight.dtype is torch.bfloat16
    return torch.bfloat16 if is_half else torch.float32


def _group_size(config: Any) -> int:
    """Return how many query heads share a key/value head."""
    num_heads: int = config.num_attention_heads
    return num_heads // (getattr(config, "num_key_value_heads", None) or num_heads)


def _is_joinable(linear: nn.Module) -> bool:
    if isinstance(linear, Int8Linear):
        return True
    return type(linear) is nn.Linear and linear.weight.dtype in JOINABLE


class _Rows:
    """One linear's input for T rows, as floats and as what a product multiplies.

    That is bytes with a scale each over int8, halves over packed bfloat16, and else nothing.
    """

    def __init__(self, num_rows: int, width: int, rows_type: type | None) -> None:
        self.x = torch.empty(num_rows, width)
        rows = decoder.build_rows(num_rows if rows_type else 1, width, rows_type or rounding.BYTE)
        # torch does little with unsigned halves.
        self.rows = torch.from_numpy(rows.view(np.int16) if rows_type is rounding.HALF else rows)
        # Over float linears a product is already what it should be.
        self.scale = torch.ones(num_rows)
        self.arrays = (self.x.numpy(), rows, self.scale.numpy())


class FusedLlama:
    """The model's forward pass over KV memory and adapter slots that it is given."""

    def __init__(self, model: Any, *, slots: AdapterSlots, kv: KvMemory) -> None:
        config = model.config
        self._slots = slots
        self._known: list[LoraAdapter | None] = [None] * slots.num_slots
        self._kv = kv
        self._embedding: nn.Embedding = model.get_input_embeddings()
        body = model.model
        self.likeliest: list[int] = []
        self.is_int8 = isinstance(model.lm_head, Int8Linear)
        # What is rounded anyway may be multiplied in tiles of halves.
        self._has_tiles = tile_lora.IS_SUPPORTED and kv_dtype(model) is torch.bfloat16
        self.adapter_dtype = self._choose_adapter_dtype(model)
        like = torch.zeros(int(self._has_tiles), dtype=self.adapter_dtype)
        self._like = kv_memory.as_array(like)
        self._group_size = _group_size(config)
        self._threads = native.torch_threads()
        self._epsilon = np.float32(config.rms_norm_eps)
        positions = torch.arange(kv.context_tokens)[None]
        cos, sin = body.rotary_emb(torch.zeros(1), positions)
        self._cos_LE, self._sin_LE = _array(cos[0]), _array(sin[0])
        self._scaling = np.float32(self._cos_LE.shape[1] ** -0.5)
        self._attention = self._build_attention(config)
        self._first_norm_D = _array(body.layers[0].input_layernorm.weight)
        after = [layer.input_layernorm for layer in body.layers[1:]] + [body.norm]
        memory, outputs = packed_memory(model), Outputs()
        self._layers = [
            self._build_layer(model, i, norm, memory, outputs) for i, norm in enumerate(after)
        ]
        self._head = Projection(model, ("lm_head",), num_slots=0, memory=memory)
        self._rows_type = self._head.rows_type
        self._rounds = self._rows_type is not None
        self.decoder = (
            self._build_decoder() if decoder.is_supported(self._layers, self._head) else None
        )

    def _choose_adapter_dtype(self, model: Any) -> torch.dtype:
        """Return what A and B are kept in: no more precise than the base, if prompts can read it."""
        if self.is_int8:
            return torch.int8
        is_half = self._has_tiles and packs_halves(model.lm_head.weight)
        return torch.bfloat16 if is_half else torch.float32

    def _build_attention(self, config: Any) -> tile_attention.Attention | None:
        head_size = self._cos_LE.shape[1]
        if not self._has_tiles or not tile_attention.is_suited(
            head_size=head_size, group_size=self._group_size
        ):
            return None
        return tile_attention.Attention(
            num_kv=config.num_attention_heads // self._group_size,
            head_size=head_size,
            group_size=self._group_size,
            scaling=float(self._scaling),
        )

    def _build_decoder(self) -> decoder.Decoder:
        return decoder.Decoder(
            self._layers,
            self._head,
            first_norm_D=self._first_norm_D,
            epsilon=self._epsilon,
            rope=(self._cos_LE, self._sin_LE, self._scaling),
            kv_rows=self._kv.rows,
            like=self._like,
        )

    def _build_layer(
        self, model: nn.Module, index: int, norm_after: nn.Module, memory: Memory, outputs: Outputs
    ) -> decoder.Layer:
        name = f"model.layers.{index}"
        layer: Any = model.get_submodule(name)
        attention_norms = [
            _array(getattr(layer.self_attn, norm).weight)
            for norm in ("q_norm", "k_norm")
            if hasattr(layer.self_attn, norm)
        ]
        empty = np.empty((0, self._cos_LE.shape[1]), dtype=np.float32)
        parts = {
            part: Projection(
                model,
                tuple(f"{name}.{n}" for n in names),
                num_slots=self._slots.num_slots,
                memory=memory,
                outputs=outputs,
            )
            for part, names in _PARTS.items()
        }
        return decoder.Layer(
            **parts,
            keys_SGLE=kv_memory.as_array(self._kv.keys[index]),
            values_SGLE=kv_memory.as_array(self._kv.values[index]),
            norms_2E=np.stack(attention_norms) if attention_norms else empty,
            norm_before_mlp_D=_array(layer.post_attention_layernorm.weight),
            norm_after_D=_array(norm_after.weight),  # type: ignore[arg-type]
        )

    def run(self, chunks: list[Chunk], wanted: list[int]) -> Tensor:
        """Return the logits of the wanted rows. Chunks of one token come first.

        Afterwards ``likeliest`` has each row's likeliest token, or nothing if that is not known.
        """
        self.likeliest = []
        self._threads = native.torch_threads()
        self._note_adapters()
        step = packed_step.build(
            chunks,
            group_size=self._group_size,
            num_threads=self._threads[2],
            has_tiles=self._has_tiles,
        )
        rounds = self._attention.plan(step.pieces) if self._attention is not None else ()
        token_ids = [t for c in chunks for t in c.sequence.token_ids[c.start : c.end]]
        residual = self._embedding(torch.tensor(token_ids)).float()
        if self.decoder is not None and not len(step.strip_I4):
            logits, self.likeliest = self.decoder.run(self._threads, step, residual)
            return logits if len(wanted) == len(token_ids) else logits[wanted]
        first = self._layers[0]
        hidden = self._rows(residual, residual.shape[1])
        attended = self._rows(residual, first.out.num_in)
        gated = self._rows(residual, first.down.num_in)
        row_kernels.norm_rows(
            self._threads, residual.numpy(), self._first_norm_D, self._epsilon,
            *hidden.arrays, self._rounds,
        )  # fmt: skip
        for layer in self._layers:
            self._attend(layer, step, rounds, hidden, attended)
            self._finish(
                layer.out, layer.norm_before_mlp_D, step,
                given=attended, residual=residual, hidden=hidden,
            )  # fmt: skip
            y = layer.gate.multiply(hidden.x, hidden.rows)
            row_kernels.finish_gate(
                *self._finished(layer.gate, y, hidden, step), *gated.arrays, self._rounds
            )
            self._finish(
                layer.down, layer.norm_after_D, step,
                given=gated, residual=residual, hidden=hidden,
            )  # fmt: skip
        return self._logits(hidden, wanted)

    def _rows(self, residual: Tensor, width: int) -> _Rows:
        return _Rows(residual.shape[0], width, self._rows_type)

    def _attend(
        self,
        layer: decoder.Layer,
        step: decoder.Step,
        rounds: tuple[tile_attention.Round, ...],
        hidden: _Rows,
        attended: _Rows,
    ) -> None:
        y = layer.qkv.multiply(hidden.x, hidden.rows)
        row_kernels.finish_qkv(
            *self._finished(layer.qkv, y, hidden, step),
            layer.norms_2E, self._epsilon, self._cos_LE, self._sin_LE,
            step.position_T, step.kv_slot_T, layer.keys_SGLE, layer.values_SGLE,
        )  # fmt: skip
        if self._attention is not None:
            self._attention.attend(
                self._threads, rounds, y.numpy(), layer.keys_SGLE, layer.values_SGLE,
                attended.x.numpy(),
            )  # fmt: skip
        elif len(step.strip_I4):
            prompt_attention.attend_pieces(
                self._threads, y.numpy(), step.strip_I4, layer.keys_SGLE, layer.values_SGLE,
                self._scaling, attended.x.numpy(),
            )  # fmt: skip
        row_kernels.attend_rows(
            self._threads, y.numpy(), step.num_decoding, layer.keys_SGLE, layer.values_SGLE,
            step.kv_slot_T, step.position_T, self._scaling, *attended.arrays, self._rounds,
        )  # fmt: skip

    def _finish(
        self,
        projection: Projection,
        norm_D: np.ndarray,
        step: decoder.Step,
        *,
        given: _Rows,
        residual: Tensor,
        hidden: _Rows,
    ) -> None:
        """Multiply, add to the residual, and leave its norm in ``hidden``."""
        y = projection.multiply(given.x, given.rows)
        row_kernels.finish_residual(
            *self._finished(projection, y, given, step),
            residual.numpy(), norm_D, self._epsilon, *hidden.arrays, self._rounds,
        )  # fmt: skip

    def _finished(
        self, projection: Projection, y: Tensor, given: _Rows, step: decoder.Step
    ) -> tuple[Any, ...]:
        x, _, scale = given.arrays
        return (
            self._threads, y.numpy(), x, scale, projection.bias_N, step.tile_I2, step.slot_I,
            projection.table_SP4, projection.start_P, self._like,
        )  # fmt: skip

    def _logits(self, hidden: _Rows, wanted: list[int]) -> Tensor:
        rows = hidden.rows[wanted] if self._rounds else hidden.rows
        logits = self._head.multiply(hidden.x[wanted], rows)
        return logits.mul_(hidden.scale[wanted, None]) if self.is_int8 else logits

    def _note_adapters(self) -> None:
        """Follow what was put into slots or removed since the last step."""
        for slot in range(self._slots.num_slots):
            adapter = self._slots.adapter(slot)
            if adapter is not self._known[slot]:
                self._known[slot] = adapter
                for layer in self._layers:
                    for projection in (layer.qkv, layer.out, layer.gate, layer.down):
                        projection.set_adapter(slot, adapter)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().contiguous().numpy()
    return array
