"""Which API groups, versions and resources there are, in the old form and the aggregated. No I/O."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from .catalog import Catalog, GroupVersion
from .kinds import ResourceType

Json = dict[str, Any]

VERSION: Json = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.0+loraland",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "python",
    "platform": "linux/amd64",
}

_STATUS_VERBS = ["get", "patch", "update"]
# subresource -> (group and version of its kind, kind, verbs)
_SUBRESOURCES: dict[str, tuple[str, str, str, list[str]]] = {
    "scale": ("autoscaling", "v1", "Scale", _STATUS_VERBS),
    "binding": ("", "", "Binding", ["create"]),
    "eviction": ("policy", "v1", "Eviction", ["create"]),
    "log": ("", "", "", ["get"]),
    "token": ("authentication.k8s.io", "v1", "TokenRequest", ["create"]),
    "finalize": ("", "", "", ["update"]),
    "proxy": ("", "", "", ["create", "delete", "get", "patch", "update"]),
}
_PROXY_KIND = {"nodes": "NodeProxyOptions"}


def _subresource(resource: ResourceType, name: str) -> tuple[str, str, str, list[str]]:
    group, version, kind, verbs = _SUBRESOURCES.get(name, ("", "", "", _STATUS_VERBS))
    if name == "proxy":
        kind = _PROXY_KIND[resource.plural]
    return group, version, kind or resource.kind, list(verbs)


def _storage_hash(resource: ResourceType) -> str:
    text = f"{resource.group}/{resource.version}/{resource.kind}"
    return base64.b64encode(hashlib.sha512(text.encode()).digest()[:8]).decode()


def groups(catalog: Catalog) -> Json:
    """Return the APIGroupList of `/apis`."""
    found: dict[str, list[str]] = {}
    for entry in catalog.group_versions():
        if entry.group:
            found.setdefault(entry.group, []).append(entry.version)
    items = [_group(name, versions) for name, versions in found.items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": items}


def _group(name: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def group(catalog: Catalog, name: str) -> Json | None:
    versions = [entry.version for entry in catalog.group_versions() if entry.group == name]
    if not versions:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def core_versions(address: str) -> Json:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def resources(catalog: Catalog, group_name: str, version: str) -> Json | None:
    """Return the APIResourceList of one version; None if there is no such version."""
    entry = next(
        (e for e in catalog.group_versions() if (e.group, e.version) == (group_name, version)), None
    )
    if entry is None:
        return None
    listed: list[Json] = []
    for resource in entry.resources:
        listed.append(_resource(resource))
        listed += [_listed_subresource(resource, name) for name in resource.subresources]
    api_version = f"{group_name}/{version}" if group_name else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version,
        "resources": listed,
    }


def _resource(resource: ResourceType) -> Json:
    found: Json = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        found["shortNames"] = list(resource.short_names)
    if resource.categories:
        found["categories"] = list(resource.categories)
    if "list" in resource.verbs:
        found["storageVersionHash"] = _storage_hash(resource)
    return found


def _listed_subresource(resource: ResourceType, name: str) -> Json:
    group_name, version, kind, verbs = _subresource(resource, name)
    found: Json = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
    }
    if group_name:
        found |= {"group": group_name, "version": version}
    return {**found, "kind": kind, "verbs": verbs}


def aggregated(catalog: Catalog, *, core: bool) -> Json:
    """Return the APIGroupDiscoveryList of `/api` or `/apis`."""
    found: dict[str, list[Json]] = {}
    for entry in catalog.group_versions():
        if (entry.group == "") == core:
            found.setdefault(entry.group, []).append(_aggregated_version(entry))
    items = [
        {"metadata": {"name": name} if name else {}, "versions": versions}
        for name, versions in found.items()
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_version(entry: GroupVersion) -> Json:
    listed = [_aggregated_resource(resource) for resource in entry.resources]
    return {"version": entry.version, "resources": listed, "freshness": "Current"}


def _aggregated_resource(resource: ResourceType) -> Json:
    custom = resource.custom is not None
    own = {
        "group": resource.group if custom else "",
        "version": resource.version if custom else "",
        "kind": resource.kind,
    }
    found: Json = {
        "resource": resource.plural,
        "responseKind": own,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        found["shortNames"] = list(resource.short_names)
    if resource.categories:
        found["categories"] = list(resource.categories)
    if resource.subresources:
        found["subresources"] = [
            _aggregated_subresource(resource, name, own) for name in resource.subresources
        ]
    return found


def _aggregated_subresource(resource: ResourceType, name: str, own: Json) -> Json:
    group_name, version, kind, verbs = _subresource(resource, name)
    answer = {"group": group_name, "version": version, "kind": kind} if group_name else own
    return {"subresource": name, "responseKind": {**answer, "kind": kind}, "verbs": verbs}
