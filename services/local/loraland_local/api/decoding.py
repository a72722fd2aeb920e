"""From a request's bytes to an object of the right kind: parsing, strictness, types. No I/O."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import yaml

from . import definitions, formats, schemas, wire
from .errors import ApiError, bad_request
from .kinds import ResourceType

Json = dict[str, Any]

STRICT, WARN, IGNORE = "Strict", "Warn", "Ignore"


@dataclasses.dataclass
class Decoded:
    """An object with what was not understood in it."""

    obj: Json
    warnings: list[str]


def _pairs(duplicates: list[str]) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> Json:
        found: Json = {}
        for key, value in pairs:
            if key in found:
                duplicates.append(key)
            found[key] = value
        return found

    return build


def parse(body: bytes, kind: str) -> tuple[Json, list[str]]:
    """Read JSON; the second part names keys that stand there twice."""
    duplicates: list[str] = []
    try:
        obj = json.loads(body, object_pairs_hook=_pairs(duplicates))
    except (ValueError, UnicodeDecodeError) as error:
        text = body.decode(errors="replace")
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get"
            f" version/kind; json parse error: {_go_error(text, error)} ({text[:512]})"
        ) from error
    if not isinstance(obj, dict):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get"
            f" version/kind; json parse error: json: cannot unmarshal {_go_kind(obj)} into Go value"
        )
    return obj, duplicates


def _go_error(text: str, error: ValueError) -> str:
    if not text.strip():
        return "unexpected end of JSON input"
    if isinstance(error, json.JSONDecodeError):
        if error.pos >= len(text):
            return "unexpected end of JSON input"
        where = "looking for beginning of value"
        if "property name" in error.msg:
            where = "looking for beginning of object key string"
        elif "delimiter" in error.msg:
            where = "after object key:value pair"
        return f"invalid character '{text[error.pos]}' {where}"
    return str(error)


def parse_yaml(body: bytes) -> Json:
    """Read an apply configuration: YAML, or JSON as a part of it."""
    try:
        obj = json.loads(body)
    except ValueError:
        try:
            obj = yaml.load(body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders
        except yaml.YAMLError as error:
            raise bad_request(f"error decoding YAML: {error}") from error
    if not isinstance(obj, dict):
        raise bad_request("error decoding YAML: the configuration must be an object")
    return obj


def _go_kind(value: Any) -> str:
    names = {"integer": "number", "boolean": "bool"}
    found = schemas.type_name(value)
    return names.get(found, found)


def check(obj: Json, resource: ResourceType, validation: str, duplicates: list[str]) -> Decoded:
    """Drop unknown fields, or refuse them if validation is strict; check built-in types."""
    schema = definitions.root(resource)
    unknown: list[str] = []
    pruned = schemas.prune(obj, schema, "", unknown)
    faults = [f'unknown field "{path}"' for path in unknown]
    faults += [f'duplicate field "{path}"' for path in duplicates]
    if resource.custom is None:
        _check_types(pruned, schema, resource)
    if faults and validation == STRICT:
        version = resource.version
        raise bad_request(
            f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}:'
            f" strict decoding error: {', '.join(faults)}"
        )
    return Decoded(pruned, faults if validation == WARN else [])


def _check_types(obj: Json, schema: Json, resource: ResourceType) -> None:
    fault = _type_fault(obj, schema, "", resource.kind)
    if fault is not None:
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a'
            f" {resource.kind}: {fault}"
        )


def _type_fault(value: Any, reference: Json, path: str, owner: str) -> str | None:
    """Return Go's words for the first value that has the wrong type."""
    name = definitions.reference_name(reference)
    schema = definitions.resolve(reference)
    if value is None:
        return None
    if "oneOf" in schema:
        return _quantity_fault(value, name)
    types = schema.get("type")
    wanted = types[0] if isinstance(types, list) else types
    found = schemas.type_name(value)
    if wanted is not None and found not in {wanted, "integer" if wanted == "number" else wanted}:
        where = f"Go struct field {owner}.{path}" if path else "Go value"
        go_type = _go_type(schema, wanted, name)
        return f"json: cannot unmarshal {_go_kind(value)} into {where} of type {go_type}"
    parts: list[tuple[Any, Json, str]] = []
    if isinstance(value, dict):
        owner = name.rpartition(".")[2] or owner
        for key, entry in value.items():
            field = definitions.child(schema, key) or definitions.ANYTHING
            parts.append((entry, field, f"{path}.{key}" if path else key))
    elif isinstance(value, list):
        parts = [(entry, definitions.items(schema), path) for entry in value]
    faults = (
        _type_fault(entry, field, inner, owner)
        for entry, field, inner in parts
        if field is not definitions.ANYTHING
    )
    return next(filter(None, faults), None)


def _quantity_fault(value: Any, name: str) -> str | None:
    if not name.endswith(".Quantity") or isinstance(value, int | float):
        return None
    if isinstance(value, str) and formats.is_valid("quantity", value):
        return None
    return (
        "quantities must match the regular expression"
        " '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )


def _go_type(schema: Json, wanted: str, name: str) -> str:
    if wanted == "integer":
        return str(schema.get("format", "int64"))
    if wanted == "boolean":
        return "bool"
    if wanted == "array":
        inner = definitions.reference_name(definitions.items(schema)).split(".")
        return f"[]{'.'.join(inner[-2:])}" if len(inner) > 1 else "[]string"
    if wanted == "object":
        return ".".join(name.split(".")[-2:]) if name else "map[string]string"
    return wanted


def body_object(body: bytes, content_type: str, resource: ResourceType) -> tuple[Json, list[str]]:
    """Read a request body in any of the encodings that clients send."""
    if content_type == wire.CONTENT_TYPE:
        if resource.custom is not None:
            raise ApiError(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include:"
                " application/json, application/yaml",
            )
        return wire.decode(body), []
    if content_type == "application/yaml":
        return parse_yaml(body), []
    return parse(body, resource.kind)
