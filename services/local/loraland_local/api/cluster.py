"""The parts of the server wired together: store, catalog, writes, deletions, identities."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from . import catalog, clock, crds, kinds, metadata, openapi, operations
from .deletion import Deletions
from .identity import Tokens
from .kinds import ResourceType
from .storage import Store

Json = dict[str, Any]

_FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_SYSTEM_CLASSES = {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}
_ALL = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
_READ = ["get", "list", "watch"]
_WRITE = [*_READ, "create", "update", "patch", "delete", "deletecollection"]


def _own_secret(path: Path) -> bytes:
    """Read the secret that signs tokens; made on first use."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return bytes.fromhex(path.read_text().strip())


class Cluster:
    """Everything below HTTP."""

    def __init__(self, state: Path, *, admin_token: str) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.store = Store(state / "objects.sqlite")
        self.catalog = catalog.Catalog()
        self.operations = operations.Operations(self.store, self.catalog)
        self.deletions = Deletions(self.operations)
        self.documents = openapi.Documents(self.catalog)
        self.tokens = Tokens(
            admin_token=admin_token, secret=_own_secret(state / "tokens.secret"), store=self.store
        )
        self.operations.on_written = self._written
        self.operations.on_removed = self._removed
        for definition in self.store.objects(kinds.DEFINITIONS.storage_key):
            self.catalog.define(definition)
        self._first_objects()

    def close(self) -> None:
        self.store.close()

    def _written(self, obj: Json, resource: ResourceType) -> None:
        if resource is not kinds.DEFINITIONS:
            return
        if obj["metadata"].get("deletionTimestamp"):
            return  # its objects are served until the last one is gone
        spec = obj["spec"]
        if not self.catalog.knows(obj["metadata"]["name"]):
            self.store.restart_history((spec["group"], spec["names"]["plural"]))
        self.catalog.define(obj)
        ready = crds.established(obj)
        if ready["status"] != obj["status"]:
            self.operations.settle(kinds.DEFINITIONS, ready)

    def _removed(self, obj: Json, resource: ResourceType) -> None:
        if resource is kinds.DEFINITIONS:
            self.catalog.forget(obj["metadata"]["name"])
        elif resource.custom is not None:
            self.deletions.finish_definition(f"{resource.plural}.{resource.group}")

    def _first_objects(self) -> None:
        """Create what every cluster has from the start."""
        for name in _FIRST_NAMESPACES:
            labels = {"kubernetes.io/metadata.name": name}
            body = {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
            self._ensure(kinds.NAMESPACES, name, body, labels)
        for name, value in _SYSTEM_CLASSES.items():
            body = {"value": value, "preemptionPolicy": "PreemptLowerPriority"}
            self._ensure(kinds.PRIORITY_CLASSES, name, body)
        everything = [_ALL, {"verbs": ["*"], "nonResourceURLs": ["*"]}]
        self._ensure(kinds.CLUSTER_ROLES, "cluster-admin", {"rules": everything})
        groups = sorted({resource.group for resource in kinds.BUILTIN} - {kinds.RBAC_GROUP})
        for name, verbs in (("view", _READ), ("edit", _WRITE), ("admin", _WRITE)):
            allowed = [*groups, kinds.RBAC_GROUP] if name == "admin" else groups
            rules = [{"verbs": verbs, "apiGroups": allowed, "resources": ["*"]}]
            self._ensure(kinds.CLUSTER_ROLES, name, {"rules": rules})
        reference = {
            "apiGroup": kinds.RBAC_GROUP,
            "kind": "ClusterRole",
            "name": "cluster-admin",
        }
        subject = {"apiGroup": kinds.RBAC_GROUP, "kind": "Group", "name": "system:masters"}
        binding = {"roleRef": reference, "subjects": [subject]}
        self._ensure(kinds.CLUSTER_ROLE_BINDINGS, "cluster-admin", binding)

    def _ensure(
        self, resource: ResourceType, name: str, body: Json, labels: Json | None = None
    ) -> None:
        if self.store.get(resource.storage_key, ("", name)) is not None:
            return
        meta: Json = {"name": name}
        if labels:
            meta["labels"] = labels
        head = {"kind": resource.kind, "apiVersion": resource.api_version}
        obj = {**head, "metadata": metadata.new({"metadata": meta}, resource, "", clock.now())}
        self.store.put(resource.storage_key, ("", name), {**obj, **body})
