"""Object metadata: what a new object gets, what an update may not touch. No I/O."""

from __future__ import annotations

import random
import uuid
from typing import Any

from . import formats
from .errors import Cause, forbidden_value, invalid_value, required_value
from .kinds import ResourceType

Json = dict[str, Any]

MAX_ANNOTATIONS_BYTES = 256 * 1024
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_LABEL_NAMED = {"Namespace", "Service"}
_SHORT_FINALIZERS = {
    *("orphan", "foregroundDeletion", "kubernetes", "customresourcecleanup.apiextensions.k8s.io"),
}
_FREE_NAMED = {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}


def generated_name(prefix: str) -> str:
    suffix = "".join(random.choices(_SUFFIX, k=5))  # noqa: S311 - a name, not a secret
    return prefix[:58] + suffix


def new(obj: Json, resource: ResourceType, namespace: str, now: str) -> Json:
    """Return metadata for an object that is about to be created."""
    metadata = dict(obj.get("metadata") or {})
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
        metadata.pop(key, None)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generated_name(metadata["generateName"])
    if resource.namespaced:
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = now
    if resource.generation:
        metadata["generation"] = 1
    return metadata


def faults(metadata: Json, resource: ResourceType) -> list[Cause]:
    causes = _name_faults(metadata.get("name", ""), resource)
    for key, value in (metadata.get("labels") or {}).items():
        causes += _label_faults(key, value)
    annotations = metadata.get("annotations") or {}
    if sum(len(key) + len(value) for key, value in annotations.items()) > MAX_ANNOTATIONS_BYTES:
        message = f"Too long: may not be more than {MAX_ANNOTATIONS_BYTES} bytes"
        causes.append(Cause("FieldValueTooLong", message, "metadata.annotations"))
    for index, owner in enumerate(metadata.get("ownerReferences") or []):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                path = f"metadata.ownerReferences[{index}].{field}"
                causes.append(invalid_value(path, '""', "must not be empty"))
    for finalizer in metadata.get("finalizers") or []:
        if "/" not in finalizer and finalizer not in _SHORT_FINALIZERS:
            why = (
                "name is neither a standard finalizer name nor is it fully qualified"
                " (for example: example.com/finalizer)"
            )
            causes.append(invalid_value("metadata.finalizers", f'"{finalizer}"', why))
    return causes


def _name_faults(name: str, resource: ResourceType) -> list[Cause]:
    if not name:
        return [required_value("metadata.name", "name or generateName is required")]
    why: str | None
    if resource.kind in _FREE_NAMED:
        bad = name in {".", ".."} or "/" in name or "%" in name
        why = "may not contain '/' or '%'" if bad else None
    elif resource.kind in _LABEL_NAMED:
        why = formats.label_fault(name)
    else:
        why = formats.name_fault(name)
    return [invalid_value("metadata.name", f'"{name}"', why)] if why else []


def _label_faults(key: str, value: str) -> list[Cause]:
    prefix, _, name = key.rpartition("/")
    causes = []
    if (
        not name
        or len(name) > 63
        or not _qualified(name)
        or (prefix and formats.name_fault(prefix))
    ):
        why = (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and"
            " end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc',"
            " regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
        causes.append(invalid_value("metadata.labels", f'"{key}"', why))
    if len(value) > 63:
        why = "must be no more than 63 bytes"
        causes.append(invalid_value("metadata.labels", f'"{value}"', why))
    elif value and not _qualified(value):
        why = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_'"
            " or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or"
            " 'my_value',  or '12345', regex used for validation is"
            " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )
        causes.append(invalid_value("metadata.labels", f'"{value}"', why))
    return causes


def _qualified(text: str) -> bool:
    return (
        text[:1].isalnum()
        and text[-1:].isalnum()
        and text.isascii()
        and all(letter.isalnum() or letter in "-_." for letter in text)
    )


_FIXED = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
)


def tidy(metadata: Json) -> Json:
    """Return metadata without empty parts, which are never written."""
    return {key: value for key, value in metadata.items() if value not in (None, "", [], {})}


def carried_over(new_metadata: Json, old: Json) -> Json:
    """Return updated metadata with the fields that only the server sets taken from the old."""
    before = old["metadata"]
    metadata = dict(new_metadata)
    for key in (*_FIXED, "name", "namespace", "generateName", "resourceVersion"):
        if key in before:
            metadata[key] = before[key]
        else:
            metadata.pop(key, None)
    return metadata


def update_faults(metadata: Json, old: Json, resource: ResourceType) -> list[Cause]:
    before = old["metadata"]
    causes: list[Cause] = []
    for key in ("name", "namespace", "uid"):
        if metadata.get(key) and metadata[key] != before.get(key):
            why = "field is immutable"
            causes.append(invalid_value(f"metadata.{key}", f'"{metadata[key]}"', why))
    if before.get("deletionTimestamp"):
        fresh = sorted(set(metadata.get("finalizers") or []) - set(before.get("finalizers") or []))
        if fresh:
            names = ", ".join(f'"{name}"' for name in fresh)
            why = (
                "no new finalizers can be added if the object is being deleted, found new"
                f" finalizers []string{{{names}}}"
            )
            cause = forbidden_value("metadata.finalizers", why)
            # A real server checks custom resources twice, and lists the cause twice.
            causes += [cause] if resource.custom is None else [cause, cause]
    return causes
