"""What happens to every object on its way in: identity, strictness, defaults, faults. No I/O."""

from __future__ import annotations

import dataclasses
from typing import Any

from . import conversion, decoding, defaults, errors, metadata, rules, schemas, strategies
from .errors import Cause
from .kinds import ResourceType

Json = dict[str, Any]


@dataclasses.dataclass
class Options:
    """What a request says beside its object; collects the warnings of the answer."""

    manager: str
    dry_run: bool = False
    validation: str = decoding.WARN
    force: bool = False
    subresource: str = ""
    duplicates: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)


def decoded(obj: Json, resource: ResourceType, options: Options) -> Json:
    obj = _identified(obj, resource)
    decoded = decoding.check(obj, resource, options.validation, options.duplicates)
    options.warnings += decoded.warnings
    return conversion.to_stored(decoded.obj, resource)


def _identified(obj: Json, resource: ResourceType) -> Json:
    """Check apiVersion and kind against the path; kopf and others may leave them out."""
    version = obj.get("apiVersion") or resource.api_version
    kind = obj.get("kind") or resource.kind
    if version != resource.api_version:
        raise errors.bad_request(
            f"the API version in the data ({version}) does not match the expected API version"
            f" ({resource.api_version})"
        )
    if kind != resource.kind and resource.custom is None:
        raise errors.bad_request(
            f'{kind} in version "{resource.version}" cannot be handled as a {resource.kind}:'
            f" converting ({resource.version}.{kind}) to ({resource.version}.{resource.kind}):"
            " unknown conversion"
        )
    meta = obj.get("metadata")
    meta = metadata.tidy(meta) if isinstance(meta, dict) else {}
    return {**obj, "apiVersion": version, "kind": kind, "metadata": meta}


def defaulted(obj: Json, resource: ResourceType) -> Json:
    if resource.custom is None:
        defaults.fill(obj, resource)
        return obj
    filled: Json = schemas.default(obj, resource.custom.schema)
    return filled


def faults(obj: Json, old: Json | None, resource: ResourceType, subresource: str) -> list[Cause]:
    if resource.custom is None:
        if old is None:
            return strategies.create_faults(obj, resource)
        return strategies.update_faults(obj, old, resource, subresource)
    causes = []
    schema = resource.custom.schema
    if obj["kind"] != resource.kind:
        why = f"must be {resource.kind}"
        causes.append(errors.invalid_value("kind", f'"{obj["kind"]}"', why))
    else:
        causes += schemas.validate(obj, schema, "")
    causes += schemas.duplicates(
        {key: value for key, value in obj.items() if key != "metadata"}, schema, ""
    )
    if schemas.blocks_rules(causes):
        return [*causes, schemas.UNCHECKED_RULES]
    return causes + rules.check(obj, old, schema)


def applicable(config: Json, subresource: str) -> Json:
    """Keep what an apply to the object, or to its status, may touch."""
    only_status = subresource == "status"
    head = {"apiVersion", "kind", "metadata"}
    return {
        key: value
        for key, value in config.items()
        if key in head or (key == "status") == only_status
    }
