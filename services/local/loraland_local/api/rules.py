"""Validation rules in CEL (`x-kubernetes-validations`), transition rules included. No I/O.

The engine is the Rust one of `common-expression-language`; see docs/adr/0003 for the choice. What
Kubernetes adds to the language is in `rule_functions`.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import cel

from . import definitions, formats, rule_functions
from .errors import Cause

Json = dict[str, Any]

_KEYWORDS = {
    *("as", "break", "const", "continue", "else", "false", "for", "function", "if", "import"),
    *("in", "let", "loop", "namespace", "null", "package", "return", "true", "var", "void"),
    "while",
}
_REASONS = {
    "FieldValueInvalid": "Invalid value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueRequired": "Required value",
    "FieldValueDuplicate": "Duplicate value",
}


@functools.lru_cache(maxsize=4096)
def _program(rule: str) -> cel.Program:
    return cel.compile(rule_functions.translate(rule))


@functools.lru_cache(maxsize=4096)
def _uses_old(rule: str) -> bool:
    return re.search(r"\boldSelf\b", rule) is not None


def compile_fault(rule: str) -> str | None:
    """Say why a rule does not compile; None if it does."""
    try:
        _program(rule)
    except ValueError as error:
        return str(error)
    return None


@functools.lru_cache(maxsize=4096)
def _property_name(key: str) -> str:
    """Write a field's name as CEL identifiers spell it."""
    if key in _KEYWORDS:
        return f"__{key}__"
    for found, spelled in (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__")):
        key = key.replace(found, spelled)
    return key.replace("/", "__slash__")


def to_cel(value: Any, schema: Json) -> Any:
    """Give a JSON value the types its schema promises to CEL."""
    if isinstance(value, dict):
        named = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        extra = extra if isinstance(extra, dict) else {}
        return {
            _property_name(key) if key in named else key: to_cel(entry, named.get(key, extra))
            for key, entry in value.items()
        }
    if isinstance(value, list):
        item = definitions.items(schema)
        return [to_cel(entry, item) for entry in value]
    if isinstance(value, int) and not isinstance(value, bool) and schema.get("type") == "number":
        return float(value)
    if isinstance(value, str) and schema.get("format") in {"date-time", "date"}:
        return formats.parse_time(value if "T" in value.upper() else f"{value}T00:00:00Z")
    if isinstance(value, str) and schema.get("format") == "duration":
        return rule_functions.duration(value)
    return value


def _has_rules(schema: Json) -> bool:
    """Tell whether there is any rule in a schema; remembered in the schema itself."""
    known = schema.get("_has_rules")
    if known is None:
        parts: list[Any] = list(schema.get("properties", {}).values())
        parts += [schema.get("additionalProperties"), schema.get("items")]
        known = bool(schema.get("x-kubernetes-validations")) or any(
            isinstance(part, dict) and _has_rules(part) for part in parts
        )
        schema["_has_rules"] = known
    return bool(known)


def check(value: Any, old: Any, schema: Json, path: str = "") -> list[Cause]:
    """Evaluate the rules of a value and all its parts; ``old`` is None on creation."""
    if not _has_rules(schema):
        return []
    causes = []
    for rule in schema.get("x-kubernetes-validations", []):
        cause = _evaluate(rule, value, old, schema, path)
        if cause is not None:
            causes.append(cause)
    if isinstance(value, dict):
        named, extra = schema.get("properties", {}), schema.get("additionalProperties")
        for key, entry in value.items():
            field = named.get(key, extra)
            if isinstance(field, dict) and entry is not None:
                before = old.get(key) if isinstance(old, dict) else None
                causes += check(entry, before, field, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, entry in enumerate(value):
            before = _counterpart(entry, old, schema)
            causes += check(entry, before, schema["items"], f"{path}[{index}]")
    return causes


def _counterpart(entry: Any, old: Any, schema: Json) -> Any:
    """Find the old element that an element of an associative list replaces."""
    if not isinstance(old, list) or definitions.list_type(schema) != "map":
        return None
    keys = definitions.list_keys(schema)
    wanted = definitions.element_key(entry, keys)
    return next((item for item in old if definitions.element_key(item, keys) == wanted), None)


def _evaluate(rule: Json, value: Any, old: Any, schema: Json, path: str) -> Cause | None:
    text: str = rule["rule"]
    variables = {"self": _self(value, schema, path)}
    if _uses_old(text):
        if rule.get("optionalOldSelf"):
            previous = None if old is None else _self(old, schema, path)
            variables["oldSelf"] = rule_functions.optional(previous)
        elif old is None:
            return None
        else:
            variables["oldSelf"] = _self(old, schema, path)
    where = path + rule.get("fieldPath", "") if path else rule.get("fieldPath", "").lstrip(".")
    try:
        if _program(text).execute(rule_functions.context(variables)) is True:
            return None
    except Exception as error:  # whatever a rule of the user's runs into is the rule's fault
        message = f"Invalid value: rule evaluation error: {text}: {error}"
        return Cause("FieldValueInvalid", message, where or "<nil>")
    reason = rule.get("reason", "FieldValueInvalid")
    return Cause(reason, f"{_REASONS[reason]}: {_message(rule, variables)}", where or "<nil>")


def _self(value: Any, schema: Json, path: str) -> Any:
    if not path and isinstance(value, dict) and "metadata" in value:
        # Of the metadata a rule sees the names only.
        names = ("name", "generateName")
        metadata = {key: value["metadata"][key] for key in names if key in value["metadata"]}
        value = {**value, "metadata": metadata}
    return to_cel(value, schema)


def _message(rule: Json, variables: Json) -> str:
    expression = rule.get("messageExpression")
    if expression:
        try:
            text = _program(expression).execute(rule_functions.context(variables))
        except Exception:  # the plain message stands in for one that cannot be made
            text = ""
        if isinstance(text, str) and text.strip():
            return text
    return str(rule.get("message") or f"failed rule: {rule['rule']}").strip()
