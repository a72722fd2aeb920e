"""What a URL and a method ask for. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclasses.dataclass(frozen=True)
class Route:
    """A path below `/api/v1` or `/apis/GROUP/VERSION`, taken apart."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""


def parse(path: str) -> Route | None:
    """Take a path apart; None for one that names no resource."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in {"status", "finalize"}:
        namespace, rest = rest[1], rest[2:]
    padded = [*rest, "", "", ""]
    return Route(group, version, padded[0], namespace, padded[1], padded[2], "/".join(rest[3:]))


def verb(method: str, route: Route, query: Mapping[str, str]) -> str:
    """Return the verb that access rules know a request by."""
    if method in {"GET", "HEAD"}:
        if query.get("watch") in {"true", "1"}:
            return "watch"
        return "get" if route.name else "list"
    if method == "DELETE":
        return "delete" if route.name else "deletecollection"
    return _VERBS.get(method, method.lower())
