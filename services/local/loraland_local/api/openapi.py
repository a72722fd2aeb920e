"""OpenAPI documents: version 3 for explain, validation and apply; version 2 as far as asked. No I/O."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from . import definitions
from .catalog import Catalog, GroupVersion
from .kinds import ResourceType
from .storage import encode

Json = dict[str, Any]

_REFERENCE = "#/components/schemas/"
_QUERY = ("dryRun", "fieldManager", "fieldValidation")


def path_of(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


class Documents:
    """The documents of the moment; each is made once per state of the catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._made: dict[str, bytes] = {}
        self._generation = -1

    def _refresh(self) -> None:
        if self._generation != self._catalog.generation:
            self._made.clear()
            self._generation = self._catalog.generation

    def index(self) -> Json:
        """List the documents; the hash in an address changes with the document."""
        self._refresh()
        paths = {}
        for entry in self._catalog.group_versions():
            path = path_of(entry.group, entry.version)
            text = "".join(map(_fingerprint, entry.resources))
            digest = hashlib.sha256(text.encode()).hexdigest().upper()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
        return {"paths": paths}

    def document(self, path: str) -> bytes | None:
        """Return one group version's document; None if there is no such version."""
        self._refresh()
        if path not in self._made:
            entry = next(
                (
                    entry
                    for entry in self._catalog.group_versions()
                    if path_of(entry.group, entry.version) == path
                ),
                None,
            )
            if entry is None:
                return None
            self._made[path] = encode(_document(entry))
        return self._made[path]


def _fingerprint(resource: ResourceType) -> str:
    schema = "" if resource.custom is None else str(resource.custom.schema)
    return f"{resource.api_version}/{resource.plural}/{resource.kind}/{schema};"


def _document(entry: GroupVersion) -> Json:
    schemas: dict[str, Json] = {}
    paths: dict[str, Json] = {}
    for resource in entry.resources:
        name = _schema_name(resource)
        kind = {"group": resource.group, "kind": resource.kind, "version": resource.version}
        if resource.custom is not None:
            root = _public(resource.custom.schema, schemas)
            schemas[name] = {**root, "x-kubernetes-group-version-kind": [kind]}
        elif name in definitions.all_definitions():
            _add(name, schemas)
        paths |= _paths(resource, kind, name)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema_name(resource: ResourceType) -> str:
    if resource.custom is None:
        return definitions.definition_name(resource)
    reversed_group = ".".join(reversed(resource.group.split(".")))
    return f"{reversed_group}.{resource.version}.{resource.kind}"


def _add(name: str, schemas: dict[str, Json]) -> None:
    """Add a definition and all that it refers to."""
    if name not in schemas:
        schemas[name] = {}
        schemas[name] = _public(definitions.all_definitions()[name], schemas)


def _public(schema: Any, schemas: dict[str, Json]) -> Any:
    """Write a schema as OpenAPI 3: references moved, one type each, nothing of our own."""
    if isinstance(schema, list):
        return [_public(entry, schemas) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found: Json = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str):
            name = value.removeprefix(definitions.PREFIX)
            _add(name, schemas)
            found["allOf"] = [{"$ref": _REFERENCE + name}]
        elif key == "type" and isinstance(value, list):
            found["type"] = value[0]
        elif key == "enum" and isinstance(value, list):
            found["enum"] = copy.copy(value)
        elif not key.startswith("_"):
            found[key] = _public(value, schemas)
    return found


def _paths(resource: ResourceType, kind: Json, name: str) -> dict[str, Json]:
    base = f"/{path_of(resource.group, resource.version)}"
    if resource.namespaced:
        base += "/namespaces/{namespace}"
    collection = f"{base}/{resource.plural}"
    parameters = [
        {"name": entry, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for entry in _QUERY
    ]
    reply = {"schema": {"$ref": _REFERENCE + name}}

    def operation(action: str, media: str = "application/json") -> Json:
        return {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": {media: reply}}},
        }

    found = {collection: {"post": operation("post"), "get": operation("list")}}
    if "get" in resource.verbs:
        found[collection + "/{name}"] = {
            "get": operation("get"),
            "put": operation("put"),
            "patch": operation("patch"),
            "delete": operation("delete"),
        }
    else:
        del found[collection]["get"]
    return found


def version_two() -> Json:
    """Return the least that is a version 2 document; clients read version 3 for the rest."""
    info = {"title": "Kubernetes", "version": "v1.36.0"}
    return {"swagger": "2.0", "info": info, "paths": {}, "definitions": {}}


def version_two_protobuf() -> bytes:
    """Return the same in protobuf: swagger = 1, info (title = 1, version = 2) = 2."""

    def field(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    info = field(1, b"Kubernetes") + field(2, b"v1.36.0")
    return field(1, b"2.0") + field(2, info)
