"""CustomResourceDefinitions: what makes one valid, and its way to Established. No I/O."""

from __future__ import annotations

from typing import Any

from . import clock, rules
from .errors import Cause, invalid_value, required_value

Json = dict[str, Any]


def faults(obj: Json) -> list[Cause]:
    spec = obj.get("spec") or {}
    names = spec.get("names") or {}
    causes: list[Cause] = []
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    if obj["metadata"].get("name") != wanted:
        why = 'must be spec.names.plural+"."+spec.group'
        causes.append(invalid_value("metadata.name", f'"{obj["metadata"].get("name")}"', why))
    stored = [version for version in spec.get("versions") or [] if version.get("storage")]
    if len(stored) != 1:
        why = "must have exactly one version marked as storage version"
        causes.append(invalid_value("spec.versions", "[...]", why))
    for index, version in enumerate(spec.get("versions") or []):
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            causes.append(required_value(path, "schemas are required"))
        else:
            causes += _schema_faults(schema, path, root=True)
    return causes


def _schema_faults(schema: Json, path: str, *, root: bool = False) -> list[Cause]:
    causes: list[Cause] = []
    untyped = schema.get("x-kubernetes-int-or-string") or schema.get(
        "x-kubernetes-preserve-unknown-fields"
    )
    if root and schema.get("type") != "object":
        causes.append(
            invalid_value(f"{path}.type", f'"{schema.get("type")}"', "must be object at the root")
        )
    elif not schema.get("type") and not untyped:
        causes.append(
            required_value(f"{path}.type", "must not be empty for specified object fields")
        )
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or []):
        fault = rules.compile_fault(rule.get("rule", ""))
        if fault:
            where = f"{path}.x-kubernetes-validations[{index}].rule"
            text = f"compilation failed: {fault}"
            causes.append(invalid_value(where, f'"{rule.get("rule")}"', text))
    for key, field in (schema.get("properties") or {}).items():
        if isinstance(field, dict):
            causes += _schema_faults(field, f"{path}.properties[{key}]")
    if isinstance(schema.get("items"), dict):
        causes += _schema_faults(schema["items"], f"{path}.items")
    if isinstance(schema.get("additionalProperties"), dict):
        causes += _schema_faults(schema["additionalProperties"], f"{path}.additionalProperties")
    return causes


def established(obj: Json) -> Json:
    """Return a definition as its controllers leave it: names accepted, established."""
    now = clock.now()
    stored = next(v["name"] for v in obj["spec"]["versions"] if v.get("storage"))
    status = obj.get("status") or {}
    versions = list(dict.fromkeys([*(status.get("storedVersions") or []), stored]))
    conditions = [
        {
            "type": "NamesAccepted",
            "status": "True",
            "lastTransitionTime": now,
            "reason": "NoConflicts",
            "message": "no conflicts found",
        },
        {
            "type": "Established",
            "status": "True",
            "lastTransitionTime": now,
            "reason": "InitialNamesAccepted",
            "message": "the initial names have been accepted",
        },
    ]
    return {
        **obj,
        "status": {
            "conditions": status.get("conditions") or conditions,
            "acceptedNames": obj["spec"]["names"],
            "storedVersions": versions,
        },
    }
