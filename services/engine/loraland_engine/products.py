"""Some outputs of a linear for all rows, compiled: bytes or halves, as the rows' type says. CPU; no I/O.

Shapes: T rows, D in, N outs.
"""

# Numba reads these functions, not mypy: their arguments are NumPy arrays and plain numbers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

import numpy as np

from loraland_engine import byte_products, half_products, rounding
from loraland_engine.native import extending, types


def tiles(num_rows: int, rows_type: type) -> np.ndarray:
    """Return how tile registers are to be set up for rows of a type; empty where there are none."""
    kind = half_products if rows_type is rounding.HALF else byte_products
    return kind.tiles(num_rows)


def multiply_blocks(rows_TD, scale_T, described, address, blocks, weights, y_TN, sums):
    """Write the outputs of some blocks, [first, last), as floats.

    ``address`` is the first block's of all; ``weights`` has shifts, scales and the bias.
    """
    raise AssertionError("only compiled code multiplies blocks")


@extending.overload(multiply_blocks)
def _multiply_blocks(rows_TD, scale_T, described, address, blocks, weights, y_TN, sums):
    if rows_TD.dtype == types.uint16:

        def halves(rows_TD, scale_T, described, address, blocks, weights, y_TN, sums):
            half_products.multiply_blocks(
                rows_TD, described, address, blocks[0], blocks[1], weights[2], y_TN,
                sums.ctypes.data,
            )  # fmt: skip

        return halves

    def of_bytes(rows_TD, scale_T, described, address, blocks, weights, y_TN, sums):
        shift_N, scale_N, bias_N = weights
        byte_products.multiply_blocks(
            rows_TD, scale_T, described, address, blocks[0], blocks[1], shift_N, scale_N, bias_N,
            y_TN, sums,
        )  # fmt: skip

    return of_bytes
