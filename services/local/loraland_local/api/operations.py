"""Create, update, patch and apply: one object from a request to the store.

The order is the real server's: decode, default, record ownership, admit, prepare, validate,
store. Everything runs without awaiting, so one write never sees half of another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from . import (
    admission,
    catalog,
    clock,
    conversion,
    definitions,
    errors,
    intake,
    metadata,
    ownership,
    patches,
    strategies,
)
from .intake import Options
from .kinds import ResourceType
from .storage import Store

Json = dict[str, Any]

# These may be written without saying which version was read.
_NEEDS_VERSION = {"Lease"}
_CREATED_BY_UPDATE = {"Lease", "Endpoints", "Event", "LimitRange", "Role", "ClusterRole"}


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
        obj = intake.decoded(obj, resource, options)
        obj = intake.defaulted(obj, resource)
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
        causes += intake.faults(obj, None, resource, "")
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
        _check_name(obj, name)
        old = self.store.get(resource.storage_key, (namespace, name))
        if old is None:
            if resource.kind in _CREATED_BY_UPDATE and not options.subresource:
                return self.create(resource, namespace, obj, options), True
            raise errors.not_found(resource, name)
        new = intake.decoded(obj, resource, options)
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
        return self._replace(resource, old, intake.decoded(new, resource, options), options)

    def _replace(self, resource: ResourceType, old: Json, new: Json, options: Options) -> Json:
        self._check_version(resource, old, new)
        new = intake.defaulted(copy.deepcopy(new) if resource.custom is None else new, resource)
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
        causes += intake.faults(new, old, resource, options.subresource)
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
        config = intake.decoded(config, resource, options)
        _check_name(config, name)
        if config["metadata"].get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        config["metadata"]["name"] = name
        if resource.has_status:
            config = intake.applicable(config, options.subresource)
        live = self.store.get(resource.storage_key, (namespace, name))
        if live is not None:
            self._check_version(resource, live, config)
        elif config["metadata"].get("uid"):
            why = f"uid mismatch: the provided object specified uid {config['metadata']['uid']}"
            raise errors.conflict(resource, name, why)
        merged = ownership.apply(
            live,
            config,
            definitions.root(resource),
            ownership.Manager(
                options.manager, ownership.APPLY, resource.api_version, options.subresource
            ),
            clock.now(),
            force=options.force,
            has_status=resource.has_status,
        )
        merged = {"apiVersion": resource.api_version, "kind": resource.kind, **merged}
        if resource.custom is None:
            merged = copy.deepcopy(merged)
        merged = intake.defaulted(merged, resource)
        if live is None:
            return self._store_new(resource, namespace, merged, options), True
        return self._store_update(resource, live, merged, options), False

    def _put(self, resource: ResourceType, place: tuple[str, str], obj: Json) -> Json:
        obj = self.store.put(resource.storage_key, place, obj)
        self.on_written(obj, resource)
        return obj

    def remove(self, resource: ResourceType, obj: Json) -> Json:
        place = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        gone = self.store.remove(resource.storage_key, place, obj)
        self.on_removed(gone, resource)
        return gone


def _check_name(obj: Json, name: str) -> None:
    given = (obj.get("metadata") or {}).get("name")
    if given and given != name:
        raise errors.bad_request(
            f"the name of the object ({given}) does not match the name on the URL ({name})"
        )


def is_finished(obj: Json, resource: ResourceType) -> bool:
    """Tell whether a deleted object has nothing left to wait for."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if resource.kind == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
        return False
    return bool(meta.get("deletionGracePeriodSeconds", 0) == 0)
