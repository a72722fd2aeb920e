"""Structural schemas: unknown fields, defaults and validation, worded as the API words it. No I/O."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Callable
from typing import Any

from . import definitions, formats, quantities, wire
from .errors import Cause, invalid_value, required_value, unsupported_value

Json = dict[str, Any]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_SCALARS: dict[str, Callable[[str], str]] = {
    f"{_META}.Time": lambda text: formats.canonical_time(text, 0),
    f"{_META}.MicroTime": lambda text: formats.canonical_time(text, 6),
    "io.k8s.apimachinery.pkg.api.resource.Quantity": lambda text: (
        quantities.canonical(text) if formats.is_valid("quantity", text) else text
    ),
}
_BLOCKING = {
    "FieldValueNotSupported",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
}
UNCHECKED_RULES = Cause(
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid;"
    " correct the existing errors to complete validation",
    "<nil>",
)


def blocks_rules(causes: list[Cause]) -> bool:
    """Tell whether CEL rules cannot be trusted to run on an object with these faults."""
    return any(cause.reason in _BLOCKING for cause in causes)


def prune(value: Any, schema: Json, path: str, unknown: list[str]) -> Any:
    """Drop fields that the schema does not know, noting their paths in ``unknown``.

    Built-in kinds are written the API's way while passing: times in UTC, quantities in their one
    form, and nothing that Go would leave out.
    """
    name = definitions.reference_name(schema)
    if name in _SCALARS and isinstance(value, str | int | float):
        return _SCALARS[name](str(value))
    schema = definitions.resolve(schema)
    if isinstance(value, dict):
        kept = _prune_object(value, schema, path, unknown)
        omitted = [key for key, entry in kept.items() if not entry and wire.omits(name, key, entry)]
        return {key: entry for key, entry in kept.items() if key not in omitted}
    if isinstance(value, list) and "items" in schema:
        item = schema["items"]
        return [prune(entry, item, f"{path}[{i}]", unknown) for i, entry in enumerate(value)]
    return value


def _prune_object(value: Json, schema: Json, path: str, unknown: list[str]) -> Json:
    embedded = schema.get("x-kubernetes-embedded-resource", False)
    kept = {}
    for key, entry in value.items():
        inner = f"{path}.{key}" if path else key
        field = definitions.child(schema, key)
        if field is definitions.ANYTHING:
            kept[key] = entry
        elif field is not None:
            kept[key] = prune(entry, field, inner, unknown)
        elif embedded and key in {"apiVersion", "kind", "metadata"}:
            kept[key] = entry
        else:
            unknown.append(inner)
    return kept


def default(value: Any, schema: Json) -> Any:
    """Return the value with the schema's defaults filled in."""
    if isinstance(value, dict):
        named = schema.get("properties", {})
        filled = dict(value)
        for key, field in named.items():
            missing = key not in filled or (filled[key] is None and not field.get("nullable"))
            if missing and "default" in field:
                filled[key] = copy.deepcopy(field["default"])
            if key in filled:
                filled[key] = default(filled[key], field)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for key in filled.keys() - named.keys():
                filled[key] = default(filled[key], extra)
        return filled
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [default(entry, schema["items"]) for entry in value]
    return value


def type_name(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}
    return names.get(type(value), "array")


def _has_type(value: Any, wanted: str) -> bool:
    found = type_name(value)
    if found == "number" and wanted == "integer":
        return float(value).is_integer()
    return found == wanted or (found == "integer" and wanted == "number")


def validate(value: Any, schema: Json, path: str) -> list[Cause]:
    """Check a value against a structural schema; all faults, in the schema's order."""
    if value is None and schema.get("nullable"):
        return []
    if schema.get("x-kubernetes-int-or-string"):
        wrong = type_name(value) not in {"integer", "string"}
        return (
            [_type_fault(value, "integer,string", path)] if wrong else _string(value, schema, path)
        )
    wanted = schema.get("type")
    if wanted and not _has_type(value, wanted):
        return [_type_fault(value, wanted, path)]
    causes = _enum(value, schema, path)
    check = _CHECKS.get(type_name(value))
    if check is not None:
        causes += check(value, schema, path)
    return causes + _combined(value, schema, path)


def _type_fault(value: Any, wanted: str, path: str) -> Cause:
    found = type_name(value)
    message = f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
    return Cause("FieldValueTypeInvalid", message, path)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _enum(value: Any, schema: Json, path: str) -> list[Cause]:
    allowed = schema.get("enum")
    if allowed is None or value in allowed:
        return []
    return [unsupported_value(path, _text(value), [str(item) for item in allowed])]


def _bounds(value: float, schema: Json, path: str) -> list[Cause]:
    causes = []
    low, high, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    if low is not None:
        strict = schema.get("exclusiveMinimum") is True
        if value < low or (strict and value == low):
            rule = "greater than" if strict else "greater than or equal to"
            causes.append(
                invalid_value(path, _text(value), f"{path} in body should be {rule} {low}")
            )
    if high is not None:
        strict = schema.get("exclusiveMaximum") is True
        if value > high or (strict and value == high):
            rule = "less than" if strict else "less than or equal to"
            causes.append(
                invalid_value(path, _text(value), f"{path} in body should be {rule} {high}")
            )
    if step and value % step:
        why = f"{path} in body should be a multiple of {step}"
        causes.append(invalid_value(path, _text(value), why))
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits and not -(2**bits) <= value < 2**bits:
        why = f"{path} in body must be of type {schema['format']}: {_text(_text(value))}"
        causes.append(invalid_value(path, _text(value), why))
    return causes


@functools.lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    # RE2 has \z where Python has \Z; the rest of what schemas use is common to both.
    return re.compile(text.replace(r"\z", r"\Z"))


def _string(value: Any, schema: Json, path: str) -> list[Cause]:
    if not isinstance(value, str):
        return []
    causes = []
    low, high = schema.get("minLength"), schema.get("maxLength")
    if low is not None and len(value) < low:
        why = f"{path} in body should be at least {low} chars long"
        causes.append(invalid_value(path, _text(value), why))
    if high is not None and len(value) > high:
        message = f"Too long: may not be more than {high} bytes"
        causes.append(Cause("FieldValueTooLong", message, path))
    pattern = schema.get("pattern")
    if pattern and not _pattern(pattern).search(value):
        why = f"{path} in body should match '{pattern}'"
        causes.append(invalid_value(path, _text(value), why))
    form = schema.get("format")
    if form and not formats.is_valid(form, value):
        why = f"{path} in body must be of type {form}: {_text(value)}"
        causes.append(invalid_value(path, _text(value), why))
    return causes


def _array(value: list[Any], schema: Json, path: str) -> list[Cause]:
    causes = []
    low, high = schema.get("minItems"), schema.get("maxItems")
    if low is not None and len(value) < low:
        why = f"{path} in body should have at least {low} items"
        causes.append(invalid_value(path, str(len(value)), why))
    if high is not None and len(value) > high:
        message = f"Too many: {len(value)}: must have at most {high} items"
        causes.append(Cause("FieldValueTooMany", message, path))
    item = schema.get("items")
    if isinstance(item, dict):
        for index, entry in enumerate(value):
            causes += validate(entry, item, f"{path}[{index}]")
    return causes


def _object(value: Json, schema: Json, path: str) -> list[Cause]:
    prefix = f"{path}." if path else ""
    missing = [key for key in schema.get("required", []) if key not in value]
    causes = [required_value(prefix + key) for key in missing]
    low, high = schema.get("minProperties"), schema.get("maxProperties")
    if low is not None and len(value) < low:
        why = f"{path} in body should have at least {low} properties"
        causes.append(invalid_value(path, str(len(value)), why))
    if high is not None and len(value) > high:
        message = f"Too many: {len(value)}: must have at most {high} items"
        causes.append(Cause("FieldValueTooMany", message, path))
    named, extra = schema.get("properties", {}), schema.get("additionalProperties")
    for key, entry in value.items():
        field = named.get(key, extra)
        if isinstance(field, dict) and "$ref" not in field:
            causes += validate(entry, field, prefix + key)
    return causes


_CHECKS: dict[str, Callable[[Any, Json, str], list[Cause]]] = {
    "integer": _bounds,
    "number": _bounds,
    "string": _string,
    "array": _array,
    "object": _object,
}


def _combined(value: Any, schema: Json, path: str) -> list[Cause]:
    causes = []
    if "allOf" in schema and any(validate(value, part, path) for part in schema["allOf"]):
        causes.append(_combination_fault(path, "must validate all the schemas (allOf)"))
    if "anyOf" in schema and all(validate(value, part, path) for part in schema["anyOf"]):
        causes.append(_combination_fault(path, "must validate at least one schema (anyOf)"))
    if "oneOf" in schema:
        fitting = sum(not validate(value, part, path) for part in schema["oneOf"])
        if fitting != 1:
            text = "must validate one and only one schema (oneOf)"
            causes.append(_combination_fault(path, text))
    if "not" in schema and not validate(value, schema["not"], path):
        causes.append(_combination_fault(path, "must not validate the schema (not)"))
    return causes


def _combination_fault(path: str, text: str) -> Cause:
    return invalid_value(path, '""', f'"{path}" {text}')


def duplicates(value: Any, schema: Json, path: str) -> list[Cause]:
    """Find repeated elements in sets and associative lists."""
    schema = definitions.resolve(schema)
    causes: list[Cause] = []
    if isinstance(value, dict):
        for key, entry in value.items():
            field = definitions.child(schema, key)
            if field:
                causes += duplicates(entry, field, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        keys = definitions.list_keys(schema)
        kind = definitions.list_type(schema)
        seen: dict[str, int] = {}
        for index, entry in enumerate(value):
            where = f"{path}[{index}]"
            if kind in {"set", "map"}:
                found = entry if kind == "set" else _identity(entry, keys)
                text = _text(found)
                seen[text] = seen.get(text, 0) + 1
                if seen[text] == 2:
                    causes.append(Cause("FieldValueDuplicate", f"Duplicate value: {text}", where))
            causes += duplicates(entry, definitions.items(schema), where)
    return causes


def _identity(entry: Any, keys: list[str]) -> Json:
    return {key: entry.get(key) for key in keys if isinstance(entry, dict) and key in entry}
