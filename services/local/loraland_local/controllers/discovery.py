"""Which kinds the API serves at the moment, and where."""

import logging
from typing import Any

from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.resources import Resource

_log = logging.getLogger(__name__)
_IGNORED = {("", "events"), ("events.k8s.io", "events"), ("", "componentstatuses")}
_NEEDED_VERBS = {"list", "watch", "delete"}


async def discover(cluster: Cluster) -> list[Resource]:
    """Return each collectable kind once, in its group's preferred version, without events."""
    groups = await cluster.call("GET", "/apis")
    versions = [("", "v1")]
    for group in groups.get("groups") or []:
        preferred = group.get("preferredVersion") or group["versions"][0]
        versions.append((group["name"], preferred["version"]))
    found: list[Resource] = []
    for group_name, version in versions:
        prefix = f"/apis/{group_name}/{version}" if group_name else f"/api/{version}"
        try:
            listed = await cluster.call("GET", prefix)
        except ApiError as error:
            # A group may be on its way in or out; the next look settles it.
            _log.debug("discovery of %s: %s", prefix, error)
            continue
        found += _collectable(group_name, version, listed.get("resources") or [])
    return found


def _collectable(group: str, version: str, listed: list[dict[str, Any]]) -> list[Resource]:
    return [
        Resource(group, version, item["name"], item["kind"], bool(item["namespaced"]))
        for item in listed
        if "/" not in item["name"]
        and set(item.get("verbs") or []) >= _NEEDED_VERBS
        and (group, item["name"]) not in _IGNORED
    ]
