"""JSON, merge and strategic merge patches. No I/O; the patched object is a new one.

Unchanged parts are shared with the original, which must not be changed in place.
"""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import jsonpointer

from . import definitions
from .errors import ApiError, bad_request

Json = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_DIRECTIVES = ("$patch", "$retainKeys")
_ORDER = "$setElementOrder/"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"


def json_patch(obj: Json, operations: Any) -> Json:
    """Apply RFC 6902; a failed test or a missing path is a 422, as the real server has it."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: a JSON patch is a list of operations")
    try:
        patched: Json = jsonpatch.JsonPatch(copy.deepcopy(operations)).apply(obj)
    except jsonpatch.InvalidJsonPatch as error:
        raise bad_request(f"error decoding patch: {error}") from error
    except (
        jsonpatch.JsonPatchConflict,
        jsonpatch.JsonPatchTestFailed,
        jsonpointer.JsonPointerException,
    ) as error:
        message = "the server rejected our request due to an error in our request"
        raise ApiError(422, "Invalid", message, details={}) from error
    return patched


def merge_patch(obj: Any, patch: Any) -> Any:
    """Apply RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(obj) if isinstance(obj, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def strategic_merge(obj: Any, patch: Json, schema: Json) -> Any:
    """Apply a strategic merge patch; merge keys come from the kind's schema."""
    schema = definitions.resolve(schema)
    directive = patch.get("$patch")
    if directive == "replace":
        return _without_directives(patch)
    if directive == "delete":
        return {}
    merged = dict(obj) if isinstance(obj, dict) else {}
    if "$retainKeys" in patch:
        merged = {key: value for key, value in merged.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key in _DIRECTIVES or key.startswith(_ORDER):
            continue
        if key.startswith(_DELETE_PRIMITIVES):
            name = key.removeprefix(_DELETE_PRIMITIVES)
            merged[name] = [item for item in merged.get(name) or [] if item not in value]
        elif value is None:
            merged.pop(key, None)
        else:
            order = patch.get(_ORDER + key)
            merged[key] = _merged_value(
                merged.get(key), value, definitions.child(schema, key) or {}, order
            )
            if isinstance(value, dict) and value.get("$patch") == "delete":
                merged.pop(key)
    for key, order in patch.items():
        name = key.removeprefix(_ORDER)
        if key.startswith(_ORDER) and name not in patch and isinstance(merged.get(name), list):
            field = definitions.child(schema, name) or {}
            merged[name] = _ordered(merged[name], order, field.get("x-kubernetes-patch-merge-key"))
    return merged


def _merged_value(found: Any, value: Any, field: Json, order: list[Any] | None) -> Any:
    if isinstance(value, dict):
        return strategic_merge(found, value, field)
    if not isinstance(value, list):
        return value
    field = {**definitions.resolve(field), **field}
    if "merge" not in str(field.get("x-kubernetes-patch-strategy", "")).split(","):
        return value
    key = field.get("x-kubernetes-patch-merge-key")
    current = list(found) if isinstance(found, list) else []
    if key is None:
        merged = current + [item for item in value if item not in current]
    else:
        merged = _merge_elements(current, value, key, definitions.items(field))
    return _ordered(merged, order, key) if order else merged


def _merge_elements(current: list[Any], patch: list[Any], key: str, schema: Json) -> list[Any]:
    if any(element.get("$patch") == "replace" for element in patch):
        return [
            _without_directives(element)
            for element in patch
            if not (element.get("$patch") == "replace" and len(element) == 1)
        ]
    for element in patch:
        if key not in element:
            raise bad_request(f"map: {element} does not contain declared merge key: {key}")
        position = next(
            (at for at, item in enumerate(current) if item.get(key) == element[key]), None
        )
        if element.get("$patch") == "delete":
            if position is not None:
                del current[position]
        elif position is None:
            current.append(strategic_merge({}, element, schema))
        else:
            current[position] = strategic_merge(current[position], element, schema)
    return current


def _ordered(elements: list[Any], order: list[Any], key: str | None) -> list[Any]:
    """Sort by the order that the patch states; what it does not name keeps its neighbour."""
    names = [item.get(key) if key and isinstance(item, dict) else item for item in order]
    ranks: list[tuple[int, int]] = []
    last = -1
    for position, element in enumerate(elements):
        name = element.get(key) if key and isinstance(element, dict) else element
        last = names.index(name) if name in names else last
        ranks.append((last, position))
    return [elements[position] for _, position in sorted(ranks)]


def _without_directives(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_directives(item)
            for key, item in value.items()
            if not (
                key in _DIRECTIVES or key.startswith(_ORDER) or key.startswith(_DELETE_PRIMITIVES)
            )
        }
    if isinstance(value, list):
        return [_without_directives(item) for item in value]
    return value
