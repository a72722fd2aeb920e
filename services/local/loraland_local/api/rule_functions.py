"""What Kubernetes adds to CEL: string, list, quantity, URL and IP functions. No I/O."""

from __future__ import annotations

import datetime as dt
import decimal
import ipaddress
import itertools
import re
import urllib.parse
from collections.abc import Callable
from typing import Any

import cel

from . import quantities

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def duration(text: str) -> dt.timedelta:
    sign = -1 if text.startswith("-") else 1
    seconds = sum(
        float(number) * _UNITS_S.get(unit, 0)
        for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
    )
    return dt.timedelta(seconds=sign * seconds)


def optional(value: Any) -> Any:
    return cel.OptionalValue.none() if value is None else cel.OptionalValue.of(value)


# A quantity, an IP address or a URL travels through CEL as a one-entry map.
def _quantity(text: str) -> dict[str, Any]:
    quantities.parse(text)
    return {"__quantity__": text}


def _number(value: Any) -> decimal.Decimal:
    text = value["__quantity__"] if isinstance(value, dict) else str(value)
    return quantities.parse(text)


def _succeeds(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _as_quantity(number: decimal.Decimal) -> dict[str, Any]:
    return {"__quantity__": f"{number.normalize():f}"}


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match[0] for match in re.finditer(pattern, text)]
    return found if limit < 0 else found[:limit]


def _find(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match[0] if match else ""


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    return text.replace(old, new, limit)


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if not separator:
        return list(text)
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _substring(text: str, start: int, end: int | None = None) -> str:
    return text[start : len(text) if end is None else end]


def _index_of(value: Any, wanted: Any) -> int:
    if isinstance(value, str):
        return value.find(wanted)
    return value.index(wanted) if wanted in value else -1


def _last_index_of(value: Any, wanted: Any) -> int:
    if isinstance(value, str):
        return value.rfind(wanted)
    return len(value) - 1 - value[::-1].index(wanted) if wanted in value else -1


def _format(text: str, values: list[Any]) -> str:
    rest = iter(values)
    return re.sub(r"%(?:\.\d+)?[sdfexXob]", lambda _: _shown(next(rest)), text)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _url(text: str) -> dict[str, Any]:
    parts = urllib.parse.urlsplit(text)
    if not parts.scheme and not text.startswith("/"):
        raise ValueError(f"{text!r} is not a URL")
    return {"__url__": text}


def _url_part(name: str) -> Callable[[Any], Any]:
    return lambda value: getattr(urllib.parse.urlsplit(value["__url__"]), name) or ""


def _is_sorted(values: list[Any]) -> bool:
    return all(first <= second for first, second in itertools.pairwise(values))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "charAt": lambda text, at: text[at],
    "find": _find,
    "findAll": _find_all,
    "format": _format,
    "indexOf": _index_of,
    "isSorted": _is_sorted,
    "join": lambda values, separator="": separator.join(values),
    "lastIndexOf": _last_index_of,
    "lowerAscii": str.lower,
    "replace": _replace,
    "split": _split,
    "substring": _substring,
    "sum": sum,
    "trim": str.strip,
    "upperAscii": str.upper,
    "quantity": _quantity,
    "isQuantity": _succeeds(quantities.parse),
    "isInteger": lambda value: _number(value) == _number(value).to_integral_value(),
    "asInteger": lambda value: int(_number(value)),
    "asApproximateFloat": lambda value: float(_number(value)),
    "isGreaterThan": lambda first, second: _number(first) > _number(second),
    "isLessThan": lambda first, second: _number(first) < _number(second),
    "compareTo": lambda first, second: int(_number(first).compare(_number(second))),
    "add": lambda first, second: _as_quantity(_number(first) + _number(second)),
    "sub": lambda first, second: _as_quantity(_number(first) - _number(second)),
    "sign": lambda value: int(_number(value).compare(decimal.Decimal(0))),
    "isURL": _succeeds(_url),
    "url": _url,
    "getScheme": _url_part("scheme"),
    "getHost": _url_part("netloc"),
    "getHostname": _url_part("hostname"),
    "getPort": lambda value: str(_url_part("port")(value)),
    "getEscapedPath": _url_part("path"),
    "isIP": _succeeds(ipaddress.ip_address),
    "isCIDR": _succeeds(lambda text: ipaddress.ip_network(text, strict=False)),
}


def translate(rule: str) -> str:
    """Rewrite the few forms that the engine's parser does not know."""
    # self.?a.orValue(b) reads an absent field; the engine has ``has()`` for it.
    rule = re.sub(
        r"((?:\w+)(?:\.\w+)*)\.\?(\w+)\.orValue\(([^()]*)\)",
        r"(has(\1.\2) ? \1.\2 : \3)",
        rule,
    )
    return re.sub(r"((?:\w+)(?:\.\w+)*)\.\?(\w+)\.hasValue\(\)", r"has(\1.\2)", rule)


def context(variables: dict[str, Any]) -> cel.Context:
    return cel.Context(variables=variables, functions=_FUNCTIONS)
