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
    directive = patch.get("$patch")
    if directive == "replace":
        return _without_directives(patch)
    if directive == "delete":
        return {}
    schema = definitions.resolve(schema)
    before = obj if isinstance(obj, dict) else {}
    merged = dict(before)
    if "$retainKeys" in patch:
        merged = {key: value for key, value in merged.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith(_DELETE_PRIMITIVES):
            name = key.removeprefix(_DELETE_PRIMITIVES)
            merged[name] = [item for item in merged.get(name) or [] if item not in value]
        elif key.startswith(_ORDER):
            _reorder(merged, patch, key, schema)
        elif value is None or (isinstance(value, dict) and value.get("$patch") == "delete"):
            merged.pop(key, None)
        elif key not in _DIRECTIVES:
            field = definitions.child(schema, key) or {}
            merged[key] = _merged_value(before.get(key), value, field, patch.get(_ORDER + key))
    return merged


def _reorder(merged: Json, patch: Json, key: str, schema: Json) -> None:
    """Follow an order that comes without any change to the list itself."""
    name = key.removeprefix(_ORDER)
    elements = merged.get(name)
    if name not in patch and isinstance(elements, list):
        field = definitions.child(schema, name) or {}
        merge_key = field.get("x-kubernetes-patch-merge-key")
        merged[name] = _ordered(elements, patch[key], merge_key, elements)


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
    if order is None:
        order = [entry for entry in value if not _is_deletion(entry)]
    return _ordered(merged, order, key, list(found) if isinstance(found, list) else [])


def _is_deletion(entry: Any) -> bool:
    return isinstance(entry, dict) and "$patch" in entry


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


def _ordered(
    elements: list[Any], order: list[Any], key: str | None, before: list[Any]
) -> list[Any]:
    """Sort as the patch says; what it does not name keeps its place among what was there.

    An element that is new goes before those that the patch does not name.
    """

    def name(element: Any) -> Any:
        return element.get(key) if key and isinstance(element, dict) else element

    wanted, found = [name(entry) for entry in order], [name(entry) for entry in before]
    named = sorted(
        (entry for entry in elements if name(entry) in wanted),
        key=lambda entry: wanted.index(name(entry)),
    )
    others = [entry for entry in elements if name(entry) not in wanted]
    result = []
    for entry in named:
        if name(entry) in found:
            position = found.index(name(entry))
            while others and found.index(name(others[0])) < position:
                result.append(others.pop(0))
        result.append(entry)
    return result + others


def _without_directives(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_directives(item)
            for key, item in value.items()
            if key not in _DIRECTIVES and not key.startswith((_ORDER, _DELETE_PRIMITIVES))
        }
    if isinstance(value, list):
        return [_without_directives(item) for item in value]
    return value
