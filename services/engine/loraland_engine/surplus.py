"""Weights that nothing reads any more once they were packed. No I/O.

The fused pass multiplies with its own packed copy of int8 weights. Where the model is the engine's
alone, the integers that it came with are given up.
"""

import gc

from loraland_models import allocation, int8
from torch import nn


def give_up_weights(model: nn.Module) -> None:
    """Free the int8 weights that were packed; the model's own modules cannot run from then on."""
    # Elsewhere products read them in place.
    if int8.has_byte_products():
        for module in model.modules():
            if isinstance(module, int8.Int8Linear):
                # Of all views of it: joined linears share one.
                module.weight.untyped_storage().resize_(0)
    # Cycles among what loading made.
    gc.collect()
    allocation.return_freed()
