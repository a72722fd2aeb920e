"""Kubernetes quantities: as numbers, and written the one way the API writes them. No I/O."""

from __future__ import annotations

import decimal
from decimal import Decimal

from . import formats

_BINARY: tuple[str, ...] = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL: tuple[str, ...] = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_FACTORS = {
    **{suffix: Decimal(1000) ** (power - 3) for power, suffix in enumerate(_DECIMAL)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(_BINARY) if suffix},
}


def _split(text: str) -> tuple[Decimal, str]:
    match = formats.QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a quantity; write a number with a suffix such as Mi")
    suffix = match[3] or ""
    if suffix[:1] in {"e", "E"} and len(suffix) > 1:
        return Decimal(text.strip()), ""
    return Decimal(text.strip().removesuffix(suffix)), suffix


def parse(text: str) -> Decimal:
    """Read a quantity such as ``500m`` or ``4Gi`` as a number."""
    number, suffix = _split(text)
    return number * _FACTORS[suffix]


def canonical(text: str) -> str:
    """Write a quantity without a fraction and with the largest suffix that allows that."""
    number, suffix = _split(text)
    value = number * _FACTORS[suffix]
    if value == 0:
        return "0"
    if suffix in _BINARY[1:] and abs(value) >= 1024:
        steps, base = _BINARY, Decimal(1024)
    else:
        steps, base = _DECIMAL, Decimal(1000)
        value *= 10**9
    value = value.to_integral_value(rounding=decimal.ROUND_UP)
    power = 0
    while power + 1 < len(steps) and value % base == 0:
        value /= base
        power += 1
    return f"{value:f}{steps[power]}"
