"""GGUF to safetensors, once: a llama.cpp file becomes a folder that Transformers loads directly.

The weights keep the values that the quantized file stands for, as float32. The tokenizer comes from
the file as well, chat template and special tokens included.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging


def convert_gguf(gguf: Path, target: Path) -> None:
    """Write weights, configuration and tokenizer of ``gguf`` into the folder ``target``."""
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    # The weights are plain now. Left in place, both would have every later load look for the GGUF,
    # and save_pretrained refuses a model that says it is quantized.
    del model.config.quantization_config
    model.hf_quantizer = None
    # The GGUF's name for itself is a training run of its makers.
    model.config._name_or_path = gguf.stem
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
