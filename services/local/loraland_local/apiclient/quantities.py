"""Kubernetes resource quantities (``100m``, ``1.5Gi``). Pure, no I/O."""

import decimal
from collections.abc import Mapping
from decimal import Decimal

_FACTORS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}


def parse(text: str | float) -> Decimal:
    """Return the amount that a quantity stands for."""
    text = str(text).strip()
    for length in (2, 1):
        suffix = text[-length:]
        if suffix in _FACTORS and suffix:
            return _number(text[:-length], text) * _FACTORS[suffix]
    return _number(text, text)


def _number(text: str, whole: str) -> Decimal:
    try:
        return Decimal(text)
    except decimal.InvalidOperation as error:
        raise ValueError(f"{whole!r} is no quantity such as 500m, 2 or 1.5Gi") from error


def add(totals: dict[str, Decimal], amounts: Mapping[str, str]) -> None:
    """Add amounts of named resources to running totals."""
    for name, amount in amounts.items():
        totals[name] = totals.get(name, Decimal(0)) + parse(amount)
