"""The likeliest token of each row, found while the output head's products are still in cache. CPU; no I/O.

Each item of the head's phase notes its best of each row; ``choose`` takes the best of those. Of equal
logits the first one wins, as with ``torch.argmax``.

Shapes: T rows, V vocabulary, I items.
"""

# Numba reads these functions, not mypy: their arguments are NumPy arrays and plain numbers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

import numpy as np

from loraland_engine.native import bits_of_float, compiled

_SIGN = np.int32(0x7FFFFFFF)
# Less than any logit's.
LEAST = -(1 << 31)


@compiled
def order(number):
    """Return an integer that grows with the float: integers' maximum is vectorized."""
    # Minus nothing is nothing.
    bits = bits_of_float(number + np.float32(0.0))
    return np.int32(bits ^ ((bits >> np.int32(31)) & _SIGN))


@compiled
def note(logits_TV, first, last, best_T2):
    """Note the largest of columns [first, last) of each row in a line: its order, and its column."""
    for t in range(logits_TV.shape[0]):
        row = logits_TV[t]
        largest = np.int32(LEAST)
        for n in range(first, last):
            largest = max(largest, order(row[n]))
        if largest > best_T2[t, 0]:
            n = first
            while order(row[n]) != largest:
                n += 1
            best_T2[t, 0], best_T2[t, 1] = largest, n


def build(num_items: int, num_rows: int) -> np.ndarray:
    """Return room for what ``note`` notes, by item."""
    return np.zeros((num_items, num_rows, 2), dtype=np.int64)


def choose(best_IT2: np.ndarray) -> list[int]:
    """Return each row's token."""
    # The first item is the first columns'.
    item_T = best_IT2[:, :, 0].argmax(axis=0)
    tokens: list[int] = best_IT2[item_T, np.arange(best_IT2.shape[1]), 1].tolist()
    return tokens
