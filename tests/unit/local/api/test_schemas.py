"""Structural schemas: pruning, defaults, validation."""

from typing import Any

import pytest
from loraland_local.api import definitions, kinds, schemas

Json = dict[str, Any]

SCHEMA: Json = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "string", "enum": ["small", "large"]},
        "rank": {"type": "integer", "minimum": 1, "maximum": 64},
        "note": {"type": "string", "maxLength": 4, "pattern": "^[a-z]*$"},
        "replicas": {"type": "integer", "default": 1},
        "deep": {"type": "object", "properties": {"on": {"type": "boolean", "default": True}}},
        "tags": {
            "type": "array",
            "maxItems": 2,
            "x-kubernetes-list-type": "set",
            "items": {"type": "string"},
        },
        "any": {"x-kubernetes-preserve-unknown-fields": True},
        "port": {"x-kubernetes-int-or-string": True},
        "when": {"type": "string", "format": "date-time"},
        "maybe": {"type": "string", "nullable": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "source": {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"},
    },
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, [], id="fits"),
        pytest.param({"size": "huge"}, ['Unsupported value: "huge"'], id="enum"),
        pytest.param({"rank": 0}, ["should be greater than or equal to 1"], id="minimum"),
        pytest.param({"rank": 99}, ["should be less than or equal to 64"], id="maximum"),
        pytest.param({"rank": "8"}, ['must be of type integer: "string"'], id="type"),
        pytest.param({"rank": True}, ['must be of type integer: "boolean"'], id="no number"),
        pytest.param({"note": "abcde"}, ["Too long: may not be more than 4 bytes"], id="length"),
        pytest.param({"note": "A"}, ["should match '^[a-z]*$'"], id="pattern"),
        pytest.param({"tags": ["a", "b", "c"]}, ["Too many: 3: must have at most 2"], id="items"),
        pytest.param({"port": 1.5}, ["must be of type integer,string"], id="int or string"),
        pytest.param({"when": "yesterday"}, ["must be of type date-time"], id="format"),
        pytest.param({"maybe": None}, [], id="nullable"),
        pytest.param({"note": None}, ['must be of type string: "null"'], id="not nullable"),
        pytest.param({"labels": {"a": 1}}, ["spec.labels.a in body"], id="map values"),
        pytest.param({"source": {"a": 1, "b": 2}}, ["one and only one schema"], id="oneOf"),
        pytest.param({"rank": 0, "note": "A"}, ["greater than", "should match"], id="all at once"),
    ],
)
def test_validation_words_each_fault(change: Json, expected: list[str]) -> None:
    """Every fault is found, with the words of a real server."""
    found = [str(cause) for cause in schemas.validate({"size": "small", **change}, SCHEMA, "spec")]

    assert len(expected) == len(found)
    assert all(part in text for part, text in zip(expected, found, strict=True))


def test_missing_field_is_named_with_its_path() -> None:
    """A required field is reported where it should be."""
    [cause] = schemas.validate({}, SCHEMA, "spec")

    assert (cause.field, cause.message) == ("spec.size", "Required value")


def test_defaults_fill_what_is_absent_and_leave_the_rest() -> None:
    """A part that is there gets its own defaults; one that is not stays away."""
    filled = schemas.default({"size": "small", "deep": {}}, SCHEMA)

    assert filled == {"size": "small", "replicas": 1, "deep": {"on": True}}


def test_pruning_notes_every_unknown_field() -> None:
    """Unknown fields go, except where the schema keeps them."""
    unknown: list[str] = []
    obj = {"size": "small", "colour": "red", "deep": {"x": 1}, "any": {"y": 2}}

    pruned = schemas.prune(obj, SCHEMA, "spec", unknown)

    assert pruned == {"size": "small", "deep": {}, "any": {"y": 2}}
    assert unknown == ["spec.colour", "spec.deep.x"]


def test_times_of_builtin_kinds_are_written_in_utc() -> None:
    """Clients send local offsets and fractions; what is stored has neither."""
    lease = definitions.of_kind(kinds.builtin("leases", "coordination.k8s.io"))
    obj = {"spec": {"renewTime": "2026-01-01T02:00:00.5+02:00"}}

    pruned = schemas.prune(obj, lease, "", [])

    assert pruned["spec"]["renewTime"] == "2026-01-01T00:00:00.500000Z"


def test_a_set_names_each_repeated_element_once() -> None:
    """However often an element repeats, it is one fault."""
    found = schemas.duplicates({"tags": ["a", "a", "a", "b"]}, SCHEMA, "spec")

    assert [str(cause) for cause in found] == ['spec.tags[1]: Duplicate value: "a"']


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"rank": 0}, False), ({"size": "huge"}, True), ({"rank": "x"}, True)],
    ids=["a bound", "an enum", "a type"],
)
def test_only_some_faults_keep_rules_from_running(change: Json, expected: bool) -> None:
    """A rule may see a number out of bounds, but not a wrong type."""
    causes = schemas.validate({"size": "small", **change}, SCHEMA, "spec")

    assert expected == schemas.blocks_rules(causes)
