"""Which fields an object has and how two objects differ, as sets of paths. No I/O.

A path is a tuple of the elements that managed fields are written in: ``f:name`` for a field,
``k:{...}`` for an element of an associative list, ``v:...`` for one of a set. A set holds the
members only, so ownership is plain set arithmetic.

Source: sigs.k8s.io/structured-merge-diff, whose results these functions reproduce.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from . import definitions, wire

Json = dict[str, Any]
Path = tuple[str, ...]
Paths = set[Path]

_NOTHING = object()


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def element(entry: Any, schema: Json) -> str | None:
    """Name an element of a set or an associative list; None if the list is atomic."""
    kind = definitions.list_type(schema)
    if kind == "set":
        return f"v:{_compact(entry)}"
    if kind != "map" or not isinstance(entry, dict):
        return None
    keys = {
        key: entry.get(key, definitions.KEY_DEFAULTS.get(key))
        for key in definitions.list_keys(schema)
    }
    return "k:" + _compact({key: value for key, value in keys.items() if value is not None})


def _field(schema: Json, key: str) -> Json:
    return definitions.child(schema, key) or definitions.ANYTHING


def of(value: Any, schema: Json) -> Paths:
    """Return the paths that an applied configuration names."""
    paths: Paths = set()
    _collect(value, schema, (), paths)
    return paths


def _collect(value: Any, reference: Json, path: Path, paths: Paths) -> None:
    schema = {**definitions.resolve(reference), **reference}
    if isinstance(value, dict) and not definitions.is_atomic_map(schema):
        named = schema.get("properties", {})
        for key, entry in value.items():
            inner = (*path, f"f:{key}")
            if entry is None or entry == {} or key not in named:
                paths.add(inner)
            _collect(entry, _field(schema, key), inner, paths)
    elif isinstance(value, list) and definitions.list_type(schema) in {"set", "map"}:
        item = definitions.items(schema)
        for entry in value:
            inner = (*path, element(entry, schema) or "")
            paths.add(inner)
            if isinstance(entry, dict):
                _collect(entry, item, inner, paths)
    elif path:
        paths.add(path)


class Difference:
    """What changed from one object to the next: paths added, modified and removed."""

    def __init__(self, old: Json, new: Json, schema: Json) -> None:
        self.added: Paths = set()
        self.modified: Paths = set()
        self.removed: Paths = set()
        self._compare(old, new, schema, ())

    @property
    def written(self) -> Paths:
        return self.added | self.modified

    def _compare(self, old: Any, new: Any, reference: Json, path: Path) -> None:
        if old is new or old == new:
            return
        schema = {**definitions.resolve(reference), **reference}
        sample = new if new is not _NOTHING and new is not None else old
        if isinstance(sample, dict):
            apart = not definitions.is_atomic_map(schema)
        else:
            apart = isinstance(sample, list) and definitions.list_type(schema) in {"set", "map"}
        # Two empty parts are told apart as values: one may be null, or not there at all.
        apart = apart and any(side is not _NOTHING and side for side in (old, new))
        if apart and _fits(old, type(sample)) and _fits(new, type(sample)):
            if isinstance(sample, dict):
                name = definitions.reference_name(reference)
                self._compare_maps(old, new, schema, path, name)
            else:
                self._compare_lists(old, new, schema, path)
            return
        self._note(old, new, path)

    def _note(self, old: Any, new: Any, path: Path) -> None:
        if not path:
            return
        if old is _NOTHING:
            self.added.add(path)
        elif new is _NOTHING:
            self.removed.add(path)
        else:
            self.modified.add(path)

    def _compare_maps(self, old: Any, new: Any, schema: Json, path: Path, name: str) -> None:
        self._note_container(old, new, path)
        before = old if isinstance(old, dict) else {}
        after = new if isinstance(new, dict) else {}
        for key in before.keys() | after.keys():
            found = before.get(key, _NOTHING)
            if found is _NOTHING and old is not _NOTHING:
                # The API's own types write some fields even when nobody has set them.
                found = wire.zero(name, key, _NOTHING)
            self._compare(found, after.get(key, _NOTHING), _field(schema, key), (*path, f"f:{key}"))

    def _compare_lists(self, old: Any, new: Any, schema: Json, path: Path) -> None:
        self._note_container(old, new, path)
        before = {
            element(entry, schema) or "": entry for entry in (() if old is _NOTHING else old or ())
        }
        after = {
            element(entry, schema) or "": entry for entry in (() if new is _NOTHING else new or ())
        }
        item = definitions.items(schema)
        for key in before.keys() | after.keys():
            inner = (*path, key)
            found, wanted = before.get(key, _NOTHING), after.get(key, _NOTHING)
            if key.startswith("v:"):
                if found is not wanted and (found is _NOTHING or wanted is _NOTHING):
                    self._note(found, wanted, inner)
            else:
                self._compare(found, wanted, item, inner)

    def _note_container(self, old: Any, new: Any, path: Path) -> None:
        if path and (old is _NOTHING or new is _NOTHING):
            self._note(old, new, path)


def _fits(value: Any, kind: type) -> bool:
    return value is _NOTHING or value is None or isinstance(value, kind)


def nest(paths: Iterable[Path]) -> Json:
    """Write paths in the nested form of ``fieldsV1``."""
    root: Json = {}
    for path in sorted(paths):
        node = root
        for part in path:
            node = node.setdefault(part, {})
        node["."] = {}
    return {key: _tidy(node) for key, node in root.items() if key != "."}


def _tidy(node: Json) -> Json:
    """A member without children is written as an empty object."""
    if len(node) == 1 and "." in node:
        return {}
    return {key: ({} if key == "." else _tidy(inner)) for key, inner in node.items()}


def unnest(node: Json, path: Path = ()) -> Paths:
    """Read the nested form of ``fieldsV1``."""
    paths: Paths = set()
    for key, inner in node.items():
        if key == ".":
            paths.add(path)
        elif inner:
            paths |= unnest(inner, (*path, key))
        else:
            paths.add((*path, key))
    return paths


def dotted(path: Path) -> str:
    """Write a path as messages show it: ``.spec.containers[name="c"].image``."""
    text = ""
    for part in path:
        if part.startswith("f:"):
            text += f".{part[2:]}"
        elif part.startswith("v:"):
            text += f"[={part[2:]}]"
        else:
            pairs = json.loads(part[2:]).items()
            text += "[" + ",".join(f"{key}={_compact(value)}" for key, value in pairs) + "]"
    return text
