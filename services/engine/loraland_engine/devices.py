"""Which of the engine's parts fits a device. No I/O."""

import importlib.util

import torch

from loraland_engine.lora import AdapterSlots
from loraland_engine.lora_grouped import GroupedSlots


def build_slots(device: torch.device, *, num_slots: int, max_tokens: int) -> AdapterSlots:
    """Return the adapter slots that are fastest on a device; ``max_tokens`` is a step's most."""
    if device.type != "cuda":
        return AdapterSlots(num_slots=num_slots)
    if importlib.util.find_spec("triton") is None:
        return GroupedSlots(num_slots=num_slots)
    # Only a GPU's torch brings it.
    from loraland_engine import lora_triton  # noqa: PLC0415

    return lora_triton.TritonSlots(num_slots=num_slots, max_tokens=max_tokens, device=device)
