"""Create, update, patch and apply: one object from a request to the store.

The order is the real server's: decode, default, record ownership, admit, prepare, validate,
store. Everything runs without awaiting, so one write never sees half of another.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from . import (
    admission,
    catalog,
    clock,
    conversion,
    decoding,
    defaults,
    definitions,
    errors,
    metadata,
    ownership,
    patches,
    rules,
    schemas,
    strategies,
)
from .errors import Cause
from .kinds import ResourceType
from .storage import Store

Json = dict[str, Any]

# These may be written without saying which version was read.
_NEEDS_VERSION = {"Lease"}
_CREATED_BY_UPDATE = {"Lease", "Endpoints", "Event", "LimitRange", "Role", "ClusterRole"}


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


class Operations:
    """Writes to the store; ``written`` and ``removed`` are called after each change."""

    def __init__(self, store: Store, types: catalog.Catalog) -> None:
        self.store = store
        self.catalog = types
        self.on_written: Callable[[Json, ResourceType], None] = lambda _obj, _type: None
        self.on_removed: Callable[[Json, ResourceType], None] = lambda _obj, _type: None

    def get(self, resource: ResourceType, namespace: str, name: str) -> Json:
        """Return the stored object."""
        found = self.store.get(resource.storage_key, (namespace, name))
        if found is None:
            raise errors.not_found(resource, name)
        return found

    # --- create

    def create(self, resource: ResourceType, namespace: str, obj: Json, options: Options) -> Json:
        obj = self._decoded(obj, resource, options)
        obj = self._defaulted(obj, resource)
        if options.dry_run is False and resource.namespaced:
            given = obj["metadata"].get("namespace")
            if given and given != namespace:
                raise errors.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the"
                    " request"
                )
        manager = ownership.Manager(options.manager, ownership.UPDATE, resource.api_version)
        obj = ownership.record_update(
            None,
            obj,
            definitions.root(resource),
            manager,
            clock.now(),
            has_status=resource.has_status,
        )
        return self._store_new(resource, namespace, obj, options)

    def _store_new(
        self, resource: ResourceType, namespace: str, obj: Json, options: Options
    ) -> Json:
        given = obj["metadata"].get("resourceVersion")
        if given:
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        obj = {**obj, "metadata": metadata.new(obj, resource, namespace, clock.now())}
        obj = admission.admit_create(self.store, obj, resource)
        obj = strategies.prepare_create(obj, resource)
        causes = metadata.faults(obj["metadata"], resource)
        causes += self._faults(obj, None, resource, "")
        name = obj["metadata"].get("name") or ""
        if causes:
            raise errors.invalid(obj["kind"], resource.group, name, causes)
        place = (obj["metadata"].get("namespace", ""), name)
        if self.store.get(resource.storage_key, place) is not None:
            raise errors.already_exists(resource, name)
        if options.dry_run:
            return obj
        return self._put(resource, place, obj)

    # --- update

    def update(
        self, resource: ResourceType, namespace: str, name: str, obj: Json, options: Options
    ) -> tuple[Json, bool]:
        """Replace an object; the second part tells whether it was created by this."""
        given = (obj.get("metadata") or {}).get("name")
        if given and given != name:
            raise errors.bad_request(
                f"the name of the object ({given}) does not match the name on the URL ({name})"
            )
        old = self.store.get(resource.storage_key, (namespace, name))
        if old is None:
            if resource.kind in _CREATED_BY_UPDATE and not options.subresource:
                return self.create(resource, namespace, obj, options), True
            raise errors.not_found(resource, name)
        new = self._decoded(obj, resource, options)
        new["metadata"].setdefault("name", name)
        if not new["metadata"].get("resourceVersion") and (
            resource.custom is not None or resource.kind in _NEEDS_VERSION
        ):
            cause = errors.invalid_value(
                "metadata.resourceVersion", "0", "must be specified for an update"
            )
            raise errors.invalid(resource.plural, resource.group, name, [cause])
        return self._replace(resource, old, new, options), False

    def patch(
        self,
        resource: ResourceType,
        namespace: str,
        name: str,
        options: Options,
        *,
        media_type: str,
        patch: Any,
    ) -> Json:
        """Apply a JSON, merge or strategic merge patch."""
        old = self.get(resource, namespace, name)
        shown = conversion.from_stored(old, resource)
        if media_type == patches.JSON_PATCH:
            new = patches.json_patch(shown, patch)
        elif not isinstance(patch, dict):
            raise errors.bad_request("error decoding patch: the patch must be an object")
        elif media_type == patches.STRATEGIC_PATCH:
            new = patches.strategic_merge(shown, patch, definitions.of_kind(resource))
        else:
            new = patches.merge_patch(shown, patch)
        given = (new.get("metadata") or {}).get("name")
        if given != name:
            cause = errors.invalid_value("metadata.name", f'"{given}"', "field is immutable")
            raise errors.invalid(resource.kind, resource.group, name, [cause])
        return self._replace(resource, old, self._decoded(new, resource, options), options)

    def _replace(self, resource: ResourceType, old: Json, new: Json, options: Options) -> Json:
        self._check_version(resource, old, new)
        new = self._defaulted(copy.deepcopy(new) if resource.custom is None else new, resource)
        manager = ownership.Manager(
            options.manager, ownership.UPDATE, resource.api_version, options.subresource
        )
        time = None if options.subresource == "scale" else clock.now()
        new = ownership.record_update(
            old,
            new,
            definitions.root(resource),
            manager,
            time,
            has_status=resource.has_status,
        )
        return self._store_update(resource, old, new, options)

    def _check_version(self, resource: ResourceType, old: Json, new: Json) -> None:
        given, current = new["metadata"].get("resourceVersion"), old["metadata"]["resourceVersion"]
        name = old["metadata"]["name"]
        if given and given != current:
            raise errors.conflict(resource, name)
        uid = new["metadata"].get("uid")
        if uid and uid != old["metadata"]["uid"]:
            raise errors.conflict(
                resource,
                name,
                f"Precondition failed: UID in precondition: {uid}, UID in object meta:"
                f" {old['metadata']['uid']}",
            )

    def _store_update(self, resource: ResourceType, old: Json, new: Json, options: Options) -> Json:
        causes = metadata.update_faults(new["metadata"], old, resource)
        new = {**new, "metadata": metadata.carried_over(new["metadata"], old)}
        if options.subresource == "status":
            new = strategies.with_status(new, old, resource)
        else:
            new = strategies.prepare_update(new, old, resource, options.subresource)
        if resource.kind == "Service":
            new = admission.with_addresses(self.store, new)
        generation = strategies.next_generation(new, old, resource)
        if generation is not None:
            new["metadata"]["generation"] = generation
        if new == old:
            return old
        causes += metadata.faults(new["metadata"], resource)
        causes += self._faults(new, old, resource, options.subresource)
        name = new["metadata"]["name"]
        if causes:
            raise errors.invalid(new["kind"], resource.group, name, causes)
        if options.dry_run:
            return new
        return self.settle(resource, new)

    def settle(self, resource: ResourceType, obj: Json) -> Json:
        """Store an update; an object whose last finalizer went while being deleted goes too."""
        place = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if is_finished(obj, resource):
            return self.remove(resource, obj)
        return self._put(resource, place, obj)

    # --- apply

    def apply(
        self, resource: ResourceType, namespace: str, name: str, config: Json, options: Options
    ) -> tuple[Json, bool]:
        """Server-side apply; the second part tells whether the object was created."""
        config = self._decoded(config, resource, options)
        given = config["metadata"].get("name")
        if given and given != name:
            raise errors.bad_request(
                f"the name of the object ({given}) does not match the name on the URL ({name})"
            )
        if config["metadata"].get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        config["metadata"]["name"] = name
        if resource.has_status:
            config = _part(config, options.subresource)
        live = self.store.get(resource.storage_key, (namespace, name))
        if live is None and config["metadata"].get("uid"):
            raise errors.conflict(
                resource, name, f"uid mismatch: the provided object specified uid {name}"
            )
        if live is not None:
            self._check_version(resource, live, config)
        manager = ownership.Manager(
            options.manager, ownership.APPLY, resource.api_version, options.subresource
        )
        merged = ownership.apply(
            live,
            config,
            definitions.root(resource),
            manager,
            clock.now(),
            force=options.force,
            has_status=resource.has_status,
        )
        merged.setdefault("apiVersion", resource.api_version)
        merged.setdefault("kind", resource.kind)
        # The name is no field that anybody owns, so the merge does not carry it into a new object.
        merged["metadata"].setdefault("name", name)
        merged = self._defaulted(
            copy.deepcopy(merged) if resource.custom is None else merged, resource
        )
        if live is None:
            return self._store_new(resource, namespace, merged, options), True
        return self._store_update(resource, live, merged, options), False

    # --- shared

    def _decoded(self, obj: Json, resource: ResourceType, options: Options) -> Json:
        obj = self._identified(obj, resource)
        decoded = decoding.check(obj, resource, options.validation, options.duplicates)
        options.warnings += decoded.warnings
        return conversion.to_stored(decoded.obj, resource)

    def _identified(self, obj: Json, resource: ResourceType) -> Json:
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

    def _defaulted(self, obj: Json, resource: ResourceType) -> Json:
        if resource.custom is None:
            defaults.fill(obj, resource)
            return obj
        filled: Json = schemas.default(obj, resource.custom.schema)
        return filled

    def _faults(
        self, obj: Json, old: Json | None, resource: ResourceType, subresource: str
    ) -> list[Cause]:
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

    def _put(self, resource: ResourceType, place: tuple[str, str], obj: Json) -> Json:
        obj = self.store.put(resource.storage_key, place, obj)
        self.on_written(obj, resource)
        return obj

    def remove(self, resource: ResourceType, obj: Json) -> Json:
        place = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        gone = self.store.remove(resource.storage_key, place, obj)
        self.on_removed(gone, resource)
        return gone


def _part(config: Json, subresource: str) -> Json:
    """Keep what an apply to the object, or to its status, may touch."""
    only_status = subresource == "status"
    head = {"apiVersion", "kind", "metadata"}
    return {
        key: value
        for key, value in config.items()
        if key in head or (key == "status") == only_status
    }


def is_finished(obj: Json, resource: ResourceType) -> bool:
    """Tell whether a deleted object has nothing left to wait for."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if resource.kind == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
        return False
    return bool(meta.get("deletionGracePeriodSeconds", 0) == 0)
