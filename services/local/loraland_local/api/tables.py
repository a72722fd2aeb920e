"""Tables as `kubectl get` prints them: columns and cells of each kind. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from . import builtin_columns, clock, jsonpath
from .builtin_columns import Column
from .kinds import ResourceType

Json = dict[str, Any]

_NAME = (
    "Name must be unique within a namespace. Is required when creating resources, although some"
    " resources may allow a client to request the generation of an appropriate name automatically."
    " Name is primarily intended for creation idempotence and configuration definition. Cannot be"
    " updated. More info:"
    " https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns of a kind."""

    columns: tuple[Column, ...]


def layout(resource: ResourceType) -> Layout:
    name = Column("Name", lambda obj: obj["metadata"]["name"], form="name", description=_NAME)
    if resource.custom is None:
        columns = builtin_columns.of(resource)
        if columns[0].name == "Name" or any(column.name == "Name" for column in columns):
            return Layout(columns)
        return Layout((name, *columns))
    custom = tuple(_custom_column(entry) for entry in resource.custom.columns)
    if not custom:
        age = Column("Age", lambda obj: clock.age(obj["metadata"].get("creationTimestamp")), "date")
        custom = (age,)
    return Layout((name, *custom))


def _custom_column(entry: Json) -> Column:
    path, kind = entry["jsonPath"], entry["type"]
    description = (
        entry.get("description")
        or f"Custom resource definition column (in JSONPath format): {path}"
    )
    return Column(
        entry["name"],
        _custom_cell(path, kind),
        kind,
        entry.get("priority", 0),
        entry.get("format", ""),
        description,
    )


def _custom_cell(path: str, kind: str) -> Callable[[Json], Any]:
    def cell(obj: Json) -> Any:
        values = jsonpath.find(obj, path)
        if not values:
            return None
        if kind == "string":
            return _shown(values[0]) if len(values) == 1 else ",".join(map(_shown, values))
        value = values[0]
        if kind == "date":
            return clock.age(value) if isinstance(value, str) else None
        if kind == "integer" and isinstance(value, int | float):
            return int(value)
        return value if kind in {"number", "boolean"} else None

    return cell


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def definitions(found: Layout) -> list[Json]:
    return [
        {
            "name": column.name,
            "type": column.kind,
            "format": column.form,
            "description": column.description,
            "priority": column.priority,
        }
        for column in found.columns
    ]


def partial(obj: Json) -> Json:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj["metadata"],
    }


def row(obj: Json, found: Layout, include: str) -> Json:
    cells = [column.cell(obj) for column in found.columns]
    if include == "None":
        return {"cells": cells}
    return {"cells": cells, "object": obj if include == "Object" else partial(obj)}


def table(objects: list[Json], found: Layout, metadata: Json, include: str) -> Json:
    """Return the Table of some objects."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions(found),
        "rows": [row(obj, found, include) for obj in objects],
    }
