"""Managed fields and server-side apply: who owns which field, and what an apply does. No I/O."""

from __future__ import annotations

import dataclasses
from typing import Any

from . import definitions, fields
from .errors import ApiError
from .fields import Path, Paths

Json = dict[str, Any]

UPDATE, APPLY = "Update", "Apply"

_SYSTEM_METADATA = (
    *("name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation"),
    *("managedFields", "resourceVersion"),
)
_NEVER_OWNED: Paths = {
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    *(("f:metadata", f"f:{name}") for name in _SYSTEM_METADATA),
}


@dataclasses.dataclass(frozen=True)
class Manager:
    """Whoever writes: name, operation, API version and subresource identify one entry."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""


@dataclasses.dataclass
class Owned:
    """What one manager owns, and since when."""

    paths: Paths
    time: str | None


Owners = dict[Manager, Owned]


def read(obj: Json) -> Owners:
    owners: Owners = {}
    for entry in obj["metadata"].get("managedFields") or []:
        manager = Manager(
            entry.get("manager", ""),
            entry.get("operation", UPDATE),
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
        )
        owners[manager] = Owned(fields.unnest(entry.get("fieldsV1") or {}), entry.get("time"))
    return owners


def write(owners: Owners) -> list[Json]:
    """Return the entries in the order in which the API lists them."""
    entries = []
    for manager, owned in owners.items():
        entry: Json = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
        }
        if owned.time:
            entry["time"] = owned.time
        entry |= {"fieldsType": "FieldsV1", "fieldsV1": fields.nest(owned.paths)}
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    order = ("operation", "time", "manager", "apiVersion", "subresource")
    return sorted(entries, key=lambda entry: tuple(entry.get(key, "") for key in order))


def with_owners(obj: Json, owners: Owners) -> Json:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    entries = write(owners)
    if entries:
        metadata["managedFields"] = entries
    return {**obj, "metadata": metadata}


def _ignored(path: Path, subresource: str, *, has_status: bool) -> bool:
    if path in _NEVER_OWNED:
        return True
    return has_status and (path[0] == "f:status") != (subresource == "status")


def without_system_fields(obj: Json) -> Json:
    metadata = {
        key: value for key, value in obj.get("metadata", {}).items() if key not in _SYSTEM_METADATA
    }
    return {**obj, "metadata": metadata}


def record_update(
    old: Json | None,
    new: Json,
    schema: Json,
    manager: Manager,
    now: str | None,
    *,
    has_status: bool,
) -> Json:
    """Return ``new`` with the fields that it changed given to the manager."""
    given = new["metadata"].get("managedFields")
    if given == [{}]:
        return with_owners(new, {})
    # Entries may be edited directly: kubectl moves fields from update to apply that way.
    owners = read(new) if given else {} if old is None else read(old)
    before = {"metadata": {}} if old is None else without_system_fields(old)
    difference = fields.Difference(before, without_system_fields(new), schema)
    written = {
        path
        for path in difference.written
        if not _ignored(path, manager.subresource, has_status=has_status)
    }
    mine = owners.pop(manager, Owned(set(), None))
    _take(owners, written | difference.removed)
    paths = (mine.paths | written) - difference.removed
    if paths:
        owners[manager] = Owned(paths, now if written else mine.time)
    return with_owners(new, owners)


def _take(owners: Owners, paths: Paths) -> None:
    """Remove paths from every owner; an owner of nothing is forgotten."""
    for manager, owned in list(owners.items()):
        rest = owned.paths - paths
        if not rest:
            del owners[manager]
        elif len(rest) != len(owned.paths):
            owners[manager] = Owned(rest, owned.time)


def apply(
    live: Json | None,
    config: Json,
    schema: Json,
    manager: Manager,
    now: str,
    *,
    force: bool,
    has_status: bool,
) -> Json:
    """Merge an applied configuration into the live object.

    Raises a conflict that lists every field another manager owns with another value.
    """
    base: Json = live if live is not None else {"metadata": {}}
    owners = read(base)
    wanted = without_system_fields(config)
    configured = {
        path
        for path in fields.of(wanted, schema)
        if not _ignored(path, manager.subresource, has_status=has_status)
    }
    merged = merge(base, wanted, schema)
    for key in ("name", "namespace"):
        if key in config["metadata"]:
            merged["metadata"].setdefault(key, config["metadata"][key])
    previous = owners.pop(manager, Owned(set(), None))
    _resolve_conflicts(owners, base, merged, schema, force=force)
    others: Paths = set().union(*(owned.paths for owned in owners.values()))
    gone = _with_parents(previous.paths - configured) - configured - others
    merged = _without(merged, gone, configured | others, schema)
    _take(owners, previous.paths - configured - others)
    if configured:
        owners[manager] = Owned(configured, now)
    if live is not None and _same(live, merged, owners):
        return live
    return with_owners(merged, owners)


def _resolve_conflicts(
    owners: Owners, base: Json, merged: Json, schema: Json, *, force: bool
) -> None:
    """Take what the merge changes from its owners, or refuse to."""
    before, after = without_system_fields(base), without_system_fields(merged)
    written = fields.Difference(before, after, schema).written
    conflicts = [
        (other, path) for other, owned in owners.items() for path in sorted(owned.paths & written)
    ]
    if conflicts and not force:
        raise _conflict(conflicts)
    _take(owners, {path for _, path in conflicts})


def _same(live: Json, merged: Json, owners: Owners) -> bool:
    """Tell whether an apply changed neither a value nor an owner."""
    owned = {manager: entry.paths for manager, entry in owners.items()}
    return owned == {manager: entry.paths for manager, entry in read(live).items()} and (
        with_owners(live, {}) == with_owners(merged, {})
    )


def _conflict(conflicts: list[tuple[Manager, Path]]) -> ApiError:
    causes = []
    for manager, path in conflicts:
        text = f'conflict with "{manager.name}"'
        if manager.subresource:
            text += f' with subresource "{manager.subresource}"'
        if manager.operation == UPDATE:
            text += f" using {manager.api_version}"
        causes.append(
            {"reason": "FieldManagerConflict", "message": text, "field": fields.dotted(path)}
        )
    by_manager: dict[str, list[str]] = {}
    for cause in causes:
        by_manager.setdefault(cause["message"], []).append(cause["field"])
    plural = "s" if len(causes) > 1 else ""
    lines = []
    for text, paths in by_manager.items():
        one = f"{text}: {paths[0]}"
        lines.append(one if len(paths) == 1 else f"{text}:\n- " + "\n- ".join(paths))
    body = lines[0] if len(lines) == 1 else "\n".join(lines)
    glue = "\n" if len(lines) > 1 else " "
    message = f"Apply failed with {len(causes)} conflict{plural}:{glue}{body}"
    return ApiError(409, "Conflict", message, details={"causes": causes})


def merge(live: Any, config: Any, reference: Json) -> Any:
    """Merge by schema: maps field by field, associative lists by key, atomic values whole."""
    schema = {**definitions.resolve(reference), **reference}
    if (
        isinstance(config, dict)
        and isinstance(live, dict)
        and not definitions.is_atomic_map(schema)
    ):
        merged = dict(live)
        for key, value in config.items():
            field = definitions.child(schema, key) or definitions.ANYTHING
            merged[key] = merge(live[key], value, field) if key in live else value
        return merged
    kind = definitions.list_type(schema)
    if isinstance(config, list) and isinstance(live, list) and kind in {"set", "map"}:
        item = definitions.items(schema)
        wanted = {fields.element(entry, schema): entry for entry in config}
        result = []
        for entry in live:
            name = fields.element(entry, schema)
            result.append(merge(entry, wanted.pop(name), item) if name in wanted else entry)
        return result + list(wanted.values())
    return config


def _with_parents(paths: Paths) -> Paths:
    """Add the named fields above each path: they go too once nobody needs them."""
    found = set(paths)
    for path in paths:
        for length in range(len(path) - 1, 0, -1):
            if not path[length - 1].startswith("f:"):
                break
            found.add(path[:length])
    return found


def _without(obj: Json, gone: Paths, kept: Paths, schema: Json) -> Json:
    """Remove paths, except where something below them is still owned."""
    needed = {path[:length] for path in kept for length in range(1, len(path) + 1)}
    doomed = {path for path in gone if path not in needed and path not in _NEVER_OWNED}
    result: Json = _strip(obj, schema, (), doomed) if doomed else obj
    return result


def _strip(value: Any, reference: Json, path: Path, doomed: Paths) -> Any:
    schema = {**definitions.resolve(reference), **reference}
    if isinstance(value, dict):
        return {
            key: _strip(
                entry,
                definitions.child(schema, key) or definitions.ANYTHING,
                (*path, f"f:{key}"),
                doomed,
            )
            for key, entry in value.items()
            if (*path, f"f:{key}") not in doomed
        }
    if isinstance(value, list) and definitions.list_type(schema) in {"set", "map"}:
        item = definitions.items(schema)
        named = [((*path, fields.element(entry, schema) or ""), entry) for entry in value]
        return [_strip(entry, item, where, doomed) for where, entry in named if where not in doomed]
    return value
