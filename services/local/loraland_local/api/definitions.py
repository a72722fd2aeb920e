"""Schemas of built-in kinds, and one way to walk them and those of custom resources alike.

The definitions come from the `kubernetes-validate` wheel; read once, never changed.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import Any

from .kinds import ResourceType

Json = dict[str, Any]

RELEASE = "v1.36.0"
PREFIX = "#/$defs/"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
ANYTHING: Json = {"x-kubernetes-preserve-unknown-fields": True}

_PACKAGES = {
    "": "io.k8s.api.core.",
    "apps": "io.k8s.api.apps.",
    "autoscaling": "io.k8s.api.autoscaling.",
    "batch": "io.k8s.api.batch.",
    "policy": "io.k8s.api.policy.",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration.",
    "flowcontrol.apiserver.k8s.io": "io.k8s.api.flowcontrol.",
    "rbac.authorization.k8s.io": "io.k8s.api.rbac.",
}

# Elements of an associative list may leave these keys out.
KEY_DEFAULTS = {"protocol": "TCP"}

# Free-form JSON in built-in kinds: whatever stands there is kept as it is.
_OPAQUE = {
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
}


@functools.cache
def all_definitions() -> dict[str, Json]:
    root = importlib.resources.files("kubernetes_validate")
    path = root / "kubernetes-json-schema" / f"{RELEASE}-local" / "_definitions.json"
    found: dict[str, Json] = json.loads(path.read_text())["$defs"]
    return found


def definition_name(resource: ResourceType, kind: str = "") -> str:
    group = resource.group
    package = _PACKAGES.get(group, f"io.k8s.api.{group.split('.')[0]}.")
    return f"{package}{resource.version}.{kind or resource.kind}"


def of_kind(resource: ResourceType) -> Json:
    """Return the schema of a whole object of this kind."""
    if resource.custom is not None:
        return resource.custom.schema
    return all_definitions().get(definition_name(resource), ANYTHING)


def root(resource: ResourceType) -> Json:
    """Return a kind's schema as a reference, so that walks know whose fields they see."""
    name = definition_name(resource)
    if resource.custom is None and name in all_definitions():
        return {"$ref": PREFIX + name}
    return of_kind(resource)


def custom_root(schema: Json) -> Json:
    """Complete a custom resource's schema with what every object has."""
    properties = {
        **schema.get("properties", {}),
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"$ref": PREFIX + OBJECT_META},
    }
    return {**schema, "type": "object", "properties": properties}


def resolve(schema: Json) -> Json:
    """Follow a reference; the answer has none at its top."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    name = reference.removeprefix(PREFIX)
    return ANYTHING if name in _OPAQUE else all_definitions()[name]


def reference_name(schema: Json) -> str:
    return str(schema.get("$ref", "")).removeprefix(PREFIX)


def child(schema: Json, key: str) -> Json | None:
    """Return the unresolved schema of one field or map value; None for an unknown field."""
    found = schema.get("properties", {}).get(key)
    if found is not None:
        return dict(found) if not isinstance(found, dict) else found
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        return extra
    if extra is True or keeps_unknown(schema):
        return ANYTHING
    return None


def keeps_unknown(schema: Json) -> bool:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return True
    # A built-in object without properties is free-form; so is a schema that says nothing.
    return "properties" not in schema and "additionalProperties" not in schema


def items(schema: Json) -> Json:
    found = schema.get("items")
    return found if isinstance(found, dict) else ANYTHING


def is_atomic_map(schema: Json) -> bool:
    return schema.get("x-kubernetes-map-type") == "atomic"


def list_type(schema: Json) -> str:
    return str(schema.get("x-kubernetes-list-type", "atomic"))


def list_keys(schema: Json) -> list[str]:
    return list(schema.get("x-kubernetes-list-map-keys", []))


def element_key(element: Any, keys: list[str]) -> tuple[Any, ...] | None:
    """Return what identifies an element of an associative list; None if a key is missing."""
    if not isinstance(element, dict):
        return None
    found = tuple(element.get(key, KEY_DEFAULTS.get(key)) for key in keys)
    return None if all(value is None for value in found) else found
