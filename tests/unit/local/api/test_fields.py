"""Sets of field paths, and how two objects differ."""

from typing import Any

import pytest
from loraland_local.api import definitions, fields, kinds

Json = dict[str, Any]

PODS = definitions.root(kinds.PODS)
WIDGET: Json = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "string"},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {}},
                "plain": {"type": "array", "items": {"type": "string"}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        }
    },
}


def test_applied_fields_name_leaves_elements_and_map_keys() -> None:
    """Atomic lists are one field; sets and maps are taken apart."""
    obj = {"spec": {"size": "s", "tags": ["a"], "plain": ["x"], "labels": {"k": "v"}}}

    expected = {
        "f:spec": {
            "f:size": {},
            "f:tags": {'v:"a"': {}},
            "f:plain": {},
            "f:labels": {"f:k": {}},
        }
    }
    assert fields.nest(fields.of(obj, WIDGET)) == expected


def test_associative_list_elements_are_named_by_their_keys() -> None:
    """A port is known by number and protocol, which defaults to TCP."""
    port = {"containerPort": 80}
    obj = {"spec": {"containers": [{"name": "c", "ports": [port]}]}}

    nested = fields.nest(fields.of(obj, PODS))

    container = nested["f:spec"]["f:containers"]['k:{"name":"c"}']
    assert list(container["f:ports"]) == ['k:{"containerPort":80,"protocol":"TCP"}']


def test_nesting_and_unnesting_are_inverse() -> None:
    """What is written to managedFields is read back as it was."""
    paths = {("f:a",), ("f:a", "f:b"), ("f:c", 'k:{"n":1}'), ("f:c", 'k:{"n":1}', "f:n")}

    assert fields.unnest(fields.nest(paths)) == paths


@pytest.mark.parametrize(
    ("old", "new", "added", "modified", "removed"),
    [
        pytest.param({"size": "s"}, {"size": "m"}, set(), {("f:size",)}, set(), id="modified"),
        pytest.param({}, {"size": "m"}, {("f:size",)}, set(), set(), id="added"),
        pytest.param({"size": "s"}, {}, set(), set(), {("f:size",)}, id="removed"),
        pytest.param(
            {"tags": ["a"]},
            {"tags": ["b"]},
            {("f:tags", 'v:"b"')},
            set(),
            {("f:tags", 'v:"a"')},
            id="set",
        ),
        pytest.param(
            {"plain": ["a"]}, {"plain": ["b"]}, set(), {("f:plain",)}, set(), id="atomic list"
        ),
        pytest.param(
            {},
            {"labels": {"k": "v"}},
            {("f:labels",), ("f:labels", "f:k")},
            set(),
            set(),
            id="a new map counts itself",
        ),
    ],
)
def test_difference_sorts_paths(
    old: Json, new: Json, added: set[Any], modified: set[Any], removed: set[Any]
) -> None:
    """Each changed path is added, modified or removed."""
    schema = WIDGET["properties"]["spec"]

    difference = fields.Difference(old, new, schema)

    found = (difference.added, difference.modified, difference.removed)
    assert found == (added, modified, removed)


def test_parts_that_are_always_there_are_nobodys() -> None:
    """A pod's spec is no field of its own; an optional part is."""
    pod = {"metadata": {}, "spec": {"containers": [{"name": "c"}], "securityContext": {"a": 1}}}

    difference = fields.Difference({"metadata": {}}, pod, PODS)

    assert ("f:spec",) not in difference.added
    assert ("f:spec", "f:containers") not in difference.added
    assert ("f:spec", "f:securityContext") in difference.added


def test_path_in_a_message_shows_keys_and_values() -> None:
    """Conflicts name fields the way kubectl users know them."""
    path = ("f:spec", "f:containers", 'k:{"name":"c"}', "f:image")

    assert fields.dotted(path) == '.spec.containers[name="c"].image'
