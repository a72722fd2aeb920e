"""A container's environment variables and arguments. Pure, no I/O."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import downward

_REFERENCE = re.compile(r"\$(?:(\$)|\(([A-Za-z_.\-][A-Za-z0-9_.\-]*)\))")


class MissingObjectError(Exception):
    """A ConfigMap or Secret, or a key in one, that a pod cannot do without is not there."""


class Source(Protocol):
    """ConfigMaps and Secrets of the pod's namespace; None where there is none."""

    def config_map(self, name: str) -> Object | None: ...
    def secret(self, name: str) -> Object | None: ...


def build(
    container: Object,
    pod: Object,
    source: Source,
    *,
    base: Mapping[str, str],
    node_allocatable: dict[str, str],
) -> dict[str, str]:
    """Return the variables: the base, then ``envFrom`` in order, then ``env`` in order."""
    variables = dict(base)
    for entry in container.get("envFrom") or []:
        variables.update(_import_all(entry, source))
    for entry in container.get("env") or []:
        if entry.get("valueFrom"):
            value = _resolve(entry["valueFrom"], container, pod, source, node_allocatable)
            if value is not None:
                variables[entry["name"]] = value
        else:
            variables[entry["name"]] = expand(str(entry.get("value") or ""), variables)
    return variables


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` where the name is known; ``$$(NAME)`` stays ``$(NAME)``."""

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        return variables.get(match[2], match[0])

    return _REFERENCE.sub(replace, text)


def build_arguments(
    entrypoint: Sequence[str], container: Object, variables: Mapping[str, str]
) -> list[str]:
    """Return what to execute: ``command`` replaces an image's entrypoint, ``args`` follow."""
    command = container.get("command") or list(entrypoint)
    arguments = container.get("args") or []
    return [expand(str(part), variables) for part in [*command, *arguments]]


def data_of(kind: str, obj: Object) -> dict[str, bytes]:
    """Return all values of a ConfigMap or Secret as bytes."""
    if kind == "Secret":
        return {k: base64.b64decode(v or "") for k, v in (obj.get("data") or {}).items()}
    text = {k: str(v).encode() for k, v in (obj.get("data") or {}).items()}
    binary = {k: base64.b64decode(v) for k, v in (obj.get("binaryData") or {}).items()}
    return {**text, **binary}


def _import_all(entry: Object, source: Source) -> dict[str, str]:
    prefix = entry.get("prefix") or ""
    kind, reference, obj = "", {}, None
    if entry.get("configMapRef"):
        kind, reference = "ConfigMap", entry["configMapRef"]
        obj = source.config_map(reference["name"])
    elif entry.get("secretRef"):
        kind, reference = "Secret", entry["secretRef"]
        obj = source.secret(reference["name"])
    if obj is None:
        if reference.get("optional"):
            return {}
        raise MissingObjectError(f'{kind.lower()} "{reference.get("name")}" not found')
    return {
        f"{prefix}{key}": value.decode(errors="replace")
        for key, value in data_of(kind, obj).items()
    }


def _resolve(
    value_from: Object,
    container: Object,
    pod: Object,
    source: Source,
    node_allocatable: dict[str, str],
) -> str | None:
    if "fieldRef" in value_from:
        return downward.field(pod, value_from["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in value_from:
        return downward.resource(value_from["resourceFieldRef"], container, node_allocatable)
    if "configMapKeyRef" in value_from:
        reference = value_from["configMapKeyRef"]
        return _key("ConfigMap", reference, source.config_map(reference["name"]))
    reference = value_from["secretKeyRef"]
    return _key("Secret", reference, source.secret(reference["name"]))


def _key(kind: str, reference: Object, obj: Object | None) -> str | None:
    name, key = reference["name"], reference["key"]
    if obj is None:
        if reference.get("optional"):
            return None
        raise MissingObjectError(f'{kind.lower()} "{name}" not found')
    value = data_of(kind, obj).get(key)
    if value is None:
        if reference.get("optional"):
            return None
        raise MissingObjectError(f"couldn't find key {key} in {kind} {name}")
    return value.decode(errors="replace")
