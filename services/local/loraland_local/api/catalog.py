"""Which resources exist right now: the built-in ones and those of definitions. No I/O."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any

from . import definitions, kinds
from .kinds import ResourceType

Json = dict[str, Any]


def types_of(definition: Json) -> list[ResourceType]:
    """Return a resource for each served version of a CustomResourceDefinition."""
    spec = definition["spec"]
    names = spec["names"]
    stored = next(version["name"] for version in spec["versions"] if version.get("storage"))
    found = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or definitions.ANYTHING
        found.append(
            ResourceType(
                group=spec["group"],
                version=version["name"],
                plural=names["plural"],
                kind=names["kind"],
                singular=names.get("singular") or names["kind"].lower(),
                namespaced=spec["scope"] == "Namespaced",
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                subresources=tuple(name for name in ("status", "scale") if name in subresources),
                verbs=kinds.CUSTOM,
                generation=True,
                list_kind=names.get("listKind") or f"{names['kind']}List",
                custom=kinds.CustomVersion(
                    schema=definitions.custom_root(copy.deepcopy(schema)),
                    columns=tuple(version.get("additionalPrinterColumns") or ()),
                    scale=subresources.get("scale"),
                    selectable=tuple(
                        field["jsonPath"].lstrip(".")
                        for field in version.get("selectableFields") or ()
                    ),
                    storage_version=stored,
                ),
            )
        )
    return found


@dataclasses.dataclass(frozen=True)
class GroupVersion:
    """One API version and its resources, as discovery lists them."""

    group: str
    version: str
    resources: tuple[ResourceType, ...]


class Catalog:
    """Resources by path; definitions come and go."""

    def __init__(self) -> None:
        self._custom: dict[str, list[ResourceType]] = {}
        self._types: dict[tuple[str, str, str], ResourceType] = dict(kinds.BY_PLURAL)
        self.generation = 0

    def find(self, group: str, version: str, plural: str) -> ResourceType | None:
        return self._types.get((group, version, plural))

    def any_version(self, group: str, plural: str) -> ResourceType | None:
        return next(
            (
                found
                for found in self._types.values()
                if (found.group, found.plural) == (group, plural)
            ),
            None,
        )

    def knows(self, name: str) -> bool:
        """Tell whether a definition of this name is in force."""
        return name in self._custom

    def define(self, definition: Json) -> None:
        name = definition["metadata"]["name"]
        self.forget(name)
        self._custom[name] = types_of(definition)
        for found in self._custom[name]:
            self._types[found.group, found.version, found.plural] = found

    def forget(self, name: str) -> None:
        for found in self._custom.pop(name, []):
            del self._types[found.group, found.version, found.plural]
        self.generation += 1

    def resources(self) -> Iterable[ResourceType]:
        return self._types.values()

    def group_versions(self) -> list[GroupVersion]:
        """List API versions in order: core first, then groups in the order they came."""
        found: dict[tuple[str, str], list[ResourceType]] = {}
        for resource in self._types.values():
            found.setdefault((resource.group, resource.version), []).append(resource)
        groups = list(dict.fromkeys(group for group, _ in found))
        return [
            GroupVersion(group, version, tuple(sorted(members, key=lambda one: one.plural)))
            for (group, version), members in sorted(
                found.items(), key=lambda item: groups.index(item[0][0])
            )
        ]
