"""An embedded cluster without a server: for tests of what it does with objects."""

from pathlib import Path
from typing import Any

from loraland_local.api import kinds, patches
from loraland_local.api.cluster import Cluster
from loraland_local.api.intake import Options
from loraland_local.api.kinds import ResourceType

Json = dict[str, Any]


def definition(**version: Any) -> Json:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": {"type": "string"},
                    "replicas": {"type": "integer", "default": 1},
                },
            },
            "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
        },
    }
    entry = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        **version,
    }
    names = {"plural": "widgets", "kind": "Widget"}
    spec = {"group": "x.dev", "names": names, "scope": "Namespaced", "versions": [entry]}
    return {"metadata": {"name": "widgets.x.dev"}, "spec": spec}


def options(**given: Any) -> Options:
    return Options(manager="test", **given)


class World:
    """A cluster with a namespace, its service account and a custom kind."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder, admin_token="t")
        account = {"metadata": {"name": "default"}}
        self.create(kinds.SERVICE_ACCOUNTS, account)
        self.create(kinds.DEFINITIONS, definition(), "")
        found = self.cluster.catalog.find("x.dev", "v1", "widgets")
        assert found is not None
        self.widgets: ResourceType = found

    def create(self, resource: ResourceType, obj: Json, namespace: str = "default") -> Json:
        return self.cluster.operations.create(resource, namespace, obj, options())

    def patch(self, resource: ResourceType, name: str, patch: Json, **given: Any) -> Json:
        return self.cluster.operations.patch(
            resource,
            "default",
            name,
            options(**given),
            media_type=patches.MERGE_PATCH,
            patch=patch,
        )

    def delete(self, resource: ResourceType, name: str, **given: Any) -> Json:
        return self.cluster.deletions.delete(resource, "default", name, given, dry_run=False)

    def get(self, resource: ResourceType, name: str) -> Json | None:
        return self.cluster.store.get(resource.storage_key, ("default", name))


def widget(**spec: Any) -> Json:
    return {"metadata": {"name": "w"}, "spec": spec}


def pod(**spec: Any) -> Json:
    return {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}], **spec},
    }
