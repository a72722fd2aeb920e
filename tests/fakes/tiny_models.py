"""Tiny random models, a byte tokenizer and PEFT adapters, for tests of whatever generates text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 260
EOS_ID = 257


class ByteTokenizer:
    """Each byte is a token; the ids from 256 on are special and have no text."""

    eos_token_id = EOS_ID
    pad_token_id = 258
    chat_template = None

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return list(text.encode())

    def decode(self, token_ids: list[int], **_: Any) -> str:
        return bytes(i for i in token_ids if i < 256).decode(errors="replace")


def build_llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        eos_token_id=EOS_ID,
        bos_token_id=256,
        pad_token_id=258,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


def load(folder: Path) -> LlamaForCausalLM:
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def write_adapter(
    folder: Path,
    *,
    seed: int,
    rank: int = 4,
    zero_b: bool = False,
    build: Callable[[], LlamaForCausalLM] = build_llama,
    **config: Any,
) -> Path:
    """Write a random adapter as PEFT does and return its folder."""
    settings: dict[str, Any] = {
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": "all-linear",
        "task_type": "CAUSAL_LM",
    } | config
    model = get_peft_model(build(), LoraConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_A" in name or ("lora_B" in name and not zero_b):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise * 0.2)
    model.save_pretrained(str(folder))
    return folder
