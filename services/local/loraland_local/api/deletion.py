"""Deleting: grace periods, finalizers, propagation, and what follows for definitions."""

from __future__ import annotations

from typing import Any

from . import catalog, clock, errors, kinds, operations, selectors
from .kinds import ResourceType

Json = dict[str, Any]

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_PROPAGATION = {"Orphan": "orphan", "Foreground": "foregroundDeletion"}
# Kinds whose deletion is answered with the object instead of a Status.
_RETURNED = {
    *("PersistentVolume", "PersistentVolumeClaim", "Pod", "PodTemplate", "ResourceQuota"),
    *("Service", "ServiceAccount", "StorageClass"),
}
# For old clients' sake these leave their dependents alone unless told otherwise.
_ORPHANS = {"Job", "ReplicationController"}


class Deletions:
    """Deletes objects; keeps the catalog in step with definitions."""

    def __init__(self, objects: operations.Operations) -> None:
        self._operations = objects
        self._store = objects.store

    def delete(
        self, resource: ResourceType, namespace: str, name: str, options: Json, *, dry_run: bool
    ) -> Json:
        """Delete or begin to; returns what the API answers with."""
        old = self._operations.get(resource, namespace, name)
        _check_preconditions(old, resource, options.get("preconditions") or {})
        marked = self._marked(old, resource, options)
        if dry_run:
            return marked
        if operations.is_finished(marked, resource):
            last = marked if resource is kinds.PODS else old
            gone = self._operations.remove(resource, last)
            return gone if resource.kind in _RETURNED else _success(resource, old)
        if marked == old:
            return old
        stored = self._operations.settle(resource, marked)
        if resource is kinds.DEFINITIONS:
            self._delete_instances(stored)
        return stored

    def delete_all(
        self,
        resource: ResourceType,
        namespace: str,
        match: selectors.Match | None,
        options: Json,
        *,
        dry_run: bool,
    ) -> list[Json]:
        found = [
            obj
            for obj in self._store.objects(resource.storage_key, namespace)
            if match is None or match(obj)
        ]
        for obj in found:
            meta = obj["metadata"]
            self.delete(resource, meta.get("namespace", ""), meta["name"], options, dry_run=dry_run)
        return found

    def _marked(self, old: Json, resource: ResourceType, options: Json) -> Json:
        """Return the object as it looks once its deletion has been asked for."""
        meta = dict(old["metadata"])
        finalizers = list(meta.get("finalizers") or [])
        policy = options.get("propagationPolicy") or (
            "Orphan" if resource.kind in _ORPHANS else "Background"
        )
        if options.get("orphanDependents") is not None:
            policy = "Orphan" if options["orphanDependents"] else "Background"
        finalizers = [entry for entry in finalizers if entry not in _PROPAGATION.values()]
        if policy in _PROPAGATION:
            finalizers.append(_PROPAGATION[policy])
        marked: Json = {**old, "metadata": meta}
        if resource is kinds.DEFINITIONS and CLEANUP not in finalizers:
            finalizers.append(CLEANUP)
        if resource is kinds.NAMESPACES:
            marked["status"] = {**(old.get("status") or {}), "phase": "Terminating"}
        if finalizers:
            meta["finalizers"] = finalizers
        else:
            meta.pop("finalizers", None)
        grace_s = _grace_s(old, resource, options)
        already = meta.get("deletionTimestamp")
        if already and meta.get("deletionGracePeriodSeconds", 0) <= grace_s:
            return marked
        if not already and "generation" in meta:
            meta["generation"] += 1
        meta["deletionTimestamp"] = clock.after(grace_s)
        if resource is not kinds.NAMESPACES:
            meta["deletionGracePeriodSeconds"] = grace_s
        return marked

    def _delete_instances(self, definition: Json) -> None:
        """Delete a definition's objects, then the definition once they are gone."""
        for resource in catalog.types_of(definition)[:1]:
            self.delete_all(resource, "", None, {}, dry_run=False)
        self.finish_definition(definition["metadata"]["name"])

    def finish_definition(self, name: str) -> None:
        """Let a terminating definition go when none of its objects is left."""
        definition = self._store.get(kinds.DEFINITIONS.storage_key, ("", name))
        if definition is None or not definition["metadata"].get("deletionTimestamp"):
            return
        spec = definition["spec"]
        if self._store.shelf((spec["group"], spec["names"]["plural"])).objects:
            return
        left = [entry for entry in definition["metadata"]["finalizers"] if entry != CLEANUP]
        meta = {**definition["metadata"], "finalizers": left}
        self._operations.settle(kinds.DEFINITIONS, {**definition, "metadata": meta})


def _grace_s(obj: Json, resource: ResourceType, options: Json) -> int:
    if resource is not kinds.PODS:
        return 0
    spec, phase = obj["spec"], (obj.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in {"Succeeded", "Failed"}:
        return 0
    asked = options.get("gracePeriodSeconds")
    return int(spec.get("terminationGracePeriodSeconds", 30) if asked is None else max(asked, 0))


def _check_preconditions(obj: Json, resource: ResourceType, wanted: Json) -> None:
    for key, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(key) and wanted[key] != obj["metadata"][key]:
            raise errors.conflict(
                resource,
                obj["metadata"]["name"],
                f"Precondition failed: {label} in precondition: {wanted[key]},"
                f" {label} in object meta: {obj['metadata'][key]}",
            )


def _success(resource: ResourceType, obj: Json) -> Json:
    details = errors.resource_details(resource, obj["metadata"]["name"])
    details["uid"] = obj["metadata"]["uid"]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
