"""The part of kubectl's JSONPath that printer columns use: fields, indexes, filters. No I/O."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

Step = Callable[[list[Any]], list[Any]]

_TOKEN = re.compile(
    r"\.\.(?P<deep>[\w-]+)|\.(?P<field>(?:[\w-]|\\.)+)|\['(?P<quoted>[^']*)'\]|\[\"(?P<double>[^\"]*)\"\]"
    r"|\[(?P<index>-?\d+)\]|(?P<all>\[\*\]|\.\*)|\[\?\(@\.(?P<path>[\w.\\-]+)\s*"
    r"(?:(?P<op>==|!=|>=|<=|>|<)\s*(?P<value>[^)]+?))?\s*\)\]"
)


def _children(values: list[Any], key: str) -> list[Any]:
    return [value[key] for value in values if isinstance(value, dict) and key in value]


def _deep(values: list[Any], key: str) -> list[Any]:
    found = []
    for value in values:
        if isinstance(value, dict):
            if key in value:
                found.append(value[key])
            found += _deep(list(value.values()), key)
        elif isinstance(value, list):
            found += _deep(value, key)
    return found


def _elements(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found += (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        )
    return found


def _index(values: list[Any], index: int) -> list[Any]:
    return [
        value[index]
        for value in values
        if isinstance(value, list) and -len(value) <= index < len(value)
    ]


def _filter(values: list[Any], path: str, operator: str | None, wanted: Any) -> list[Any]:
    found = []
    for entry in _elements(values):
        value = entry
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if _holds(value, operator, wanted):
            found.append(entry)
    return found


def _holds(value: Any, operator: str | None, wanted: Any) -> bool:
    if operator is None:
        return value is not None
    if operator in {"==", "!="}:
        return bool(value == wanted) == (operator == "==")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if operator.startswith(">"):
        return bool(value > wanted or (operator == ">=" and value == wanted))
    return bool(value < wanted or (operator == "<=" and value == wanted))


def _step(match: re.Match[str]) -> Step:
    if match["deep"]:
        return lambda values: _deep(values, match["deep"])
    if match["index"]:
        return lambda values: _index(values, int(match["index"]))
    if match["all"]:
        return _elements
    if match["path"]:
        text = (match["value"] or "null").strip()
        wanted = text[1:-1] if text[0] in "'\"" else json.loads(text)
        path = match["path"].replace("\\", "")
        return lambda values: _filter(values, path, match["op"], wanted)
    key = match["quoted"] or match["double"] or (match["field"] or "").replace("\\.", ".")
    return lambda values: _children(values, key)


@functools.lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[Step, ...]:
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"{path!r}: cannot read {text[position:]!r} as JSONPath")
        steps.append(_step(match))
        position = match.end()
    return tuple(steps)


def find(obj: Any, path: str) -> list[Any]:
    """Return everything that a path leads to."""
    values = [obj]
    for step in _steps(path):
        values = step(values)
    return values
