"""Weights that nothing reads any more once they were packed. No I/O.

The fused pass multiplies with its own packed copy of int8 and bfloat16 weights. Where the model is
the engine's alone, those that it came with are given up.
"""

import gc

import torch
from loraland_models import allocation, int8
from torch import nn

from loraland_engine import linear


def give_up_weights(model: nn.Module) -> None:
    """Free the weights that were packed; the model's own modules cannot run from then on."""
    # Elsewhere products read them in place.
    if int8.has_byte_products():
        for module in model.modules():
            if isinstance(module, int8.Int8Linear):
                # Of all views of it: joined linears share one.
                module.weight.untyped_storage().resize_(0)
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for module in model.modules():
        # An embedding that shares its weight with the head reads it still.
        if type(module) is not nn.Linear or id(module.weight) in looked_up:
            continue
        if linear.packs_halves(module.weight):
            module.weight.data = torch.empty(0, dtype=module.weight.dtype)
    # Cycles among what loading made.
    gc.collect()
    allocation.return_freed()
