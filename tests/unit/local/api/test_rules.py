"""Validation rules in CEL."""

from typing import Any

import pytest
from loraland_local.api import rules

Json = dict[str, Any]


def _schema(rule: str, **properties: Json) -> Json:
    entry: Json = {"rule": rule, "message": "no"}
    return {
        "type": "object",
        "properties": properties,
        "x-kubernetes-validations": [entry],
    }


@pytest.mark.parametrize(
    ("rule", "value", "holds"),
    [
        pytest.param("has(self.a) != has(self.b)", {"a": 1}, True, id="exactly one"),
        pytest.param("has(self.a) != has(self.b)", {"a": 1, "b": 2}, False, id="both"),
        pytest.param("self.l.all(x, x.startsWith('a'))", {"l": ["ab", "ac"]}, True, id="macro"),
        pytest.param("self.s.split(',').size() == 2", {"s": "a,b"}, True, id="split"),
        pytest.param("self.s.lowerAscii() == 'ab'", {"s": "AB"}, True, id="lower"),
        pytest.param("self.?a.orValue(3) == 3", {}, True, id="optional field"),
        pytest.param(
            "quantity(self.q).isGreaterThan(quantity('1Gi'))", {"q": "1025Mi"}, True, id="quantity"
        ),
        pytest.param("isQuantity(self.q)", {"q": "lots"}, False, id="no quantity"),
        pytest.param("double(self.d) <= 0.5", {"d": "0.25"}, True, id="decimal string"),
        pytest.param("self.__namespace__ == 'x'", {"namespace": "x"}, True, id="keyword"),
        pytest.param("self.a__dash__b == 1", {"a-b": 1}, True, id="dash"),
        pytest.param("url(self.u).getHost() == 'a:1'", {"u": "http://a:1/b"}, True, id="url"),
    ],
)
def test_rule_holds(rule: str, value: Json, holds: bool) -> None:
    """Rules run with CEL's own functions and those that Kubernetes adds."""
    schema = _schema(rule, namespace={"type": "string"}, **{"a-b": {"type": "integer"}})

    assert holds == (rules.check(value, None, schema, "spec") == [])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(None, {"size": "s"}, [], id="creation"),
        pytest.param({"size": "s"}, {"size": "s"}, [], id="unchanged"),
        pytest.param({"size": "s"}, {"size": "m"}, ["spec: Invalid value: no"], id="changed"),
    ],
)
def test_transition_rule_runs_on_updates_only(
    old: Json | None, new: Json, expected: list[str]
) -> None:
    """A rule that names oldSelf has nothing to say about a new object."""
    schema = _schema("self.size == oldSelf.size", size={"type": "string"})

    assert expected == [str(cause) for cause in rules.check(new, old, schema, "spec")]


def test_elements_of_associative_lists_are_compared_by_key() -> None:
    """Moving an element does not change it."""
    item = _schema("self.value == oldSelf.value", name={"type": "string"})
    schema = {
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    }
    old = [{"name": "a", "value": 1}, {"name": "b", "value": 2}]

    found = rules.check([old[1], {"name": "a", "value": 3}], old, schema, "spec")

    assert [str(cause) for cause in found] == ["spec[1]: Invalid value: no"]


def test_message_expression_field_path_and_reason_are_used() -> None:
    """A rule chooses its words, its place and its kind of fault."""
    schema: Json = {
        "type": "object",
        "x-kubernetes-validations": [
            {
                "rule": "self.rank < 9",
                "messageExpression": "'rank ' + string(self.rank) + ' is too high'",
                "fieldPath": ".rank",
                "reason": "FieldValueForbidden",
            }
        ],
    }

    [cause] = rules.check({"rank": 12}, None, schema, "spec")

    assert (cause.field, cause.message) == ("spec.rank", "Forbidden: rank 12 is too high")


def test_rule_that_fails_to_run_is_a_fault_not_a_crash() -> None:
    """Reading a field that is not there fails the object."""
    [cause] = rules.check({}, None, _schema("self.missing == 1"), "spec")

    assert "rule evaluation error" in cause.message


def test_broken_rule_does_not_compile() -> None:
    """A syntax error is found when the definition is applied."""
    assert rules.compile_fault("self.a ==") is not None
    assert rules.compile_fault("self.a == 1") is None
