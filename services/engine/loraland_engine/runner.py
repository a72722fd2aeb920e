"""One forward pass over the chunks of a step. Owns the model, KV memory and the adapter slots.

Any causal language model of Transformers runs through its own class: one packed row of tokens, our
attention function, no cache of theirs. Models for which ``llama`` has a fused pass run through that.

Shapes: T packed tokens, N wanted rows, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn

from loraland_engine import attention, linear, llama, lora, memory, paged_attention, surplus
from loraland_engine.kv_memory import KvMemory
from loraland_engine.scheduler import Chunk


class Runner:
    """The model with our attention and LoRA in place; ``close`` gives it back as it was."""

    def __init__(
        self,
        model: Any,
        *,
        slots: lora.AdapterSlots,
        max_running: int,
        kv_bytes: int,
        context_tokens: int,
        fused: bool = True,
    ) -> None:
        self.model = model
        self.slots = slots
        config = model.config.get_text_config()
        self._context_tokens: int = min(
            context_tokens,
            config.max_position_embeddings,
            getattr(config, "sliding_window", None) or context_tokens,
        )
        self.device: torch.device = model.device
        fuse = fused and llama.is_supported(model)
        heads: int = config.num_attention_heads
        dtype = llama.kv_dtype(model) if fuse else model.get_input_embeddings().weight.dtype
        is_paged = not fuse and paged_attention.is_supported(self.device, dtype)
        num_layers: int = config.num_hidden_layers
        num_kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
        token_bytes = 2 * num_layers * num_kv_heads * head_size * dtype.itemsize
        self.kv = KvMemory(
            num_layers=num_layers,
            num_slots=memory.num_slots(
                self.device, max_running, kv_bytes, slot_bytes=token_bytes * self._context_tokens
            ),
            num_heads=num_kv_heads,
            context_tokens=self._context_tokens,
            head_size=head_size,
            dtype=dtype,
            device=self.device,
            page_tokens=paged_attention.PAGE_TOKENS if is_paged else 0,
        )
        model.eval()
        self._factors = lora.find_factors(model)
        self.likeliest: dict[str, int] = {}
        self._fused = llama.FusedLlama(model, slots=slots, kv=self.kv) if fuse else None
        self._attention_before: str = model.config._attn_implementation
        self._wrapped: dict[str, lora.LoraLinear] = {}
        self.linears = {name: _size(m) for name, m in lora.find_linears(model).items()}
        if self._fused is None:
            model.set_attn_implementation(attention.NAME)
            self._wrapped = lora.wrap_linears(model, slots)

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    @property
    def adapter_dtype(self) -> torch.dtype | None:
        """What adapters are packed in, where it is not as they are read."""
        return None if self._fused is None else self._fused.adapter_dtype

    def pack_adapter(self, adapter: lora.LoraAdapter) -> lora.LoraAdapter:
        """Return the adapter as this model's pass reads it; safe to call from another thread."""
        adapter = lora.adapt(adapter, self._factors)
        if self._fused is None:
            return adapter
        return linear.pack_adapter(adapter, self._fused.adapter_dtype)

    def own_model(self) -> None:
        """Free what of the model only its own class would read."""
        if self._fused is not None:
            surplus.give_up_weights(self.model)

    def close(self) -> None:
        if self._fused is not None:
            return
        lora.unwrap_linears(self.model, self._wrapped)
        self.model.set_attn_implementation(self._attention_before)

    def run(self, chunks: list[Chunk]) -> dict[str, Tensor]:
        """Return, by request, the logits [N, V] of the positions that it wants.

        Afterwards ``likeliest`` has the next token of requests for which it is known already.
        """
        # Decoding tokens come first: attention answers them with one call.
        chunks = sorted(chunks, key=lambda c: c.num_tokens > 1)
        if self._fused is not None:
            # Rows of one adapter side by side read its weights once.
            chunks.sort(key=lambda c: (c.num_tokens > 1, c.sequence.adapter_slot))
        wanted: list[int] = []
        owners: list[tuple[str, int]] = []
        first = 0
        for chunk in chunks:
            positions = chunk.sequence.logit_positions(chunk.start, chunk.end)
            wanted += [first + p - chunk.start for p in positions]
            owners.append((chunk.sequence.request_id, len(positions)))
            first += chunk.num_tokens
        with torch.inference_mode():
            logits_NV = self._logits(chunks, wanted)
        found = self._fused.likeliest if self._fused is not None else []
        self.likeliest = {
            c.sequence.request_id: token for c, token in zip(chunks, found, strict=bool(found))
        }
        rows = torch.split(logits_NV, [count for _, count in owners]) if wanted else ()
        return {
            request_id: part
            for (request_id, count), part in zip(owners, rows, strict=bool(wanted))
            if count
        }

    def _logits(self, chunks: list[Chunk], wanted: list[int]) -> Tensor:
        if self._fused is not None:
            return self._fused.run(chunks, wanted)
        owners = [c.sequence.adapter_slot for c in chunks for _ in range(c.num_tokens)]
        self.slots.prepare(owners, self.device)
        return self._forward(chunks, wanted)

    def _forward(self, chunks: list[Chunk], wanted: list[int]) -> Tensor:
        token_ids = [t for c in chunks for t in c.sequence.token_ids[c.start : c.end]]
        positions = [p for c in chunks for p in range(c.start, c.end)]
        position_T = torch.tensor(positions, device=self.device)
        output = self.model(
            input_ids=torch.tensor([token_ids], device=self.device),
            position_ids=position_T[None],
            use_cache=False,
            # An empty selection would mean every row to Transformers.
            logits_to_keep=torch.tensor(wanted or [0], device=self.device),
            batch=self._attention_batch(chunks, position_T),
        )
        logits: Tensor = output.logits[0]
        return logits

    def _attention_batch(self, chunks: list[Chunk], position_T: Tensor) -> attention.AttentionBatch:
        slots = [_kv_slot(c) for c in chunks]
        if self.kv.page_tokens:
            return self._paged_batch(chunks, position_T)
        decoding = [c for c in chunks if c.num_tokens == 1]
        pieces = []
        first = len(decoding)
        for chunk in chunks[len(decoding) :]:
            last = first + chunk.num_tokens
            pieces.append(
                attention.PromptPiece(first, last, _kv_slot(chunk), chunk.start, chunk.end)
            )
            first = last
        slot_R, mask = self._decode_rows(decoding)
        owners = [slot for slot, c in zip(slots, chunks, strict=True) for _ in range(c.num_tokens)]
        return attention.AttentionBatch(
            kv=self.kv,
            slot_T=torch.tensor(owners, device=self.device),
            position_T=position_T,
            num_decoding=len(decoding),
            decode_slot_R=slot_R,
            decode_mask=mask,
            pieces=tuple(pieces),
        )

    def _paged_batch(self, chunks: list[Chunk], position_T: Tensor) -> attention.AttentionBatch:
        owners = [_kv_slot(c) for c in chunks for _ in range(c.num_tokens)]
        rows = paged_attention.build_rows(
            [(_kv_slot(c), c.start, c.end) for c in chunks],
            context_tokens=self.kv.context_tokens,
            device=self.device,
        )
        slot_T = torch.tensor(owners, device=self.device)
        return attention.AttentionBatch(self.kv, slot_T, position_T, 0, None, None, (), rows)

    def _decode_rows(self, decoding: list[Chunk]) -> tuple[Tensor | None, Tensor | None]:
        if not decoding:
            return None, None
        slots = [_kv_slot(c) for c in decoding]
        lengths = [1] * (max(slots) + 1)
        for slot, chunk in zip(slots, decoding, strict=True):
            lengths[slot] = chunk.end
        mask = attention.build_decode_mask(torch.tensor(lengths, device=self.device))
        if slots == list(range(len(slots))):
            return None, mask
        return torch.tensor(slots, device=self.device), mask


def _kv_slot(chunk: Chunk) -> int:
    slot = chunk.sequence.kv_slot
    assert slot is not None, chunk.sequence.request_id
    return slot


def _size(linear: nn.Module) -> tuple[int, int]:
    """Return (in, out); quantized weights have another shape, so the module is asked."""
    return int(linear.in_features), int(linear.out_features)  # type: ignore[arg-type]
