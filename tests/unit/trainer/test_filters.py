"""Conditions on columns decide which rows are used."""

from typing import Any

import pytest
from loraland_core.errors import InvalidInput
from loraland_core.resources.dataset import FilterSpec
from loraland_trainer.filters import RowFilter


def condition(operator: str, *values: str, column: str = "a") -> FilterSpec:
    document = {"column": column, "operator": operator, "values": list(values)}
    return FilterSpec.model_validate(document)


@pytest.mark.parametrize(
    ("row", "operator", "values", "expected"),
    [
        pytest.param({"a": "x"}, "In", ["x", "y"], True, id="in"),
        pytest.param({"a": "z"}, "In", ["x", "y"], False, id="not-in-it"),
        pytest.param({"a": 1}, "In", ["1"], True, id="number-as-text"),
        pytest.param({"a": True}, "In", ["true"], True, id="boolean-as-json"),
        pytest.param({}, "In", ["x"], False, id="absent-is-in-nothing"),
        pytest.param({"a": "x"}, "NotIn", ["x"], False, id="notin"),
        pytest.param({}, "NotIn", ["x"], True, id="absent-is-notin"),
        pytest.param({"a": None}, "Exists", [], False, id="null-is-absent"),
        pytest.param({"a": ""}, "Exists", [], True, id="empty-text-is-there"),
        pytest.param({}, "DoesNotExist", [], True, id="does-not-exist"),
        pytest.param({"a": "a cat"}, "Contains", ["dog", "cat"], True, id="contains-one"),
        pytest.param({"a": ["tag"]}, "Contains", ["tag"], True, id="contains-in-a-list"),
        pytest.param({"a": 5}, "Gt", ["4.5"], True, id="greater"),
        pytest.param({"a": "4.5"}, "Gt", ["4.5"], False, id="equal-is-not-greater"),
        pytest.param({"a": "-3"}, "Lt", ["-2"], True, id="less"),
        pytest.param({"a": "many"}, "Gt", ["0"], False, id="no-number"),
    ],
)
def test_a_condition_decides(
    row: dict[str, Any], operator: str, values: list[str], expected: bool
) -> None:
    """Each operator says what its name says."""
    row_filter = RowFilter([condition(operator, *values)])

    assert row_filter.admits(row) is expected
    assert row_filter.num_left_out == int(not expected)


def test_all_conditions_must_be_met() -> None:
    """Nested columns count as elsewhere."""
    row_filter = RowFilter([condition("Exists"), condition("In", "x", column="b.c")])

    assert row_filter.admits({"a": 1, "b": {"c": "x"}})
    assert not row_filter.admits({"a": 1, "b": {"c": "y"}})


def test_a_column_behind_a_failing_condition_is_known() -> None:
    """What one condition leaves out does not make the next one's column a typing error."""
    row_filter = RowFilter([condition("In", "x"), condition("Exists", column="b")])

    row_filter.admits({"a": "y", "b": 1})

    row_filter.check_columns()
    assert row_filter.num_left_out == 1


@pytest.mark.parametrize(
    ("operator", "values", "part"),
    [
        pytest.param("In", [], "In takes values", id="in-nothing"),
        pytest.param("Exists", ["x"], "Exists takes no values", id="exists-with-a-value"),
        pytest.param("Gt", ["many"], "Gt takes one number, found ['many']", id="no-number"),
        pytest.param("Lt", ["1", "2"], "Lt takes one number", id="two-numbers"),
    ],
)
def test_senseless_conditions_are_refused(operator: str, values: list[str], part: str) -> None:
    """A job that no API server has seen is held to the same rules."""
    with pytest.raises(InvalidInput) as caught:
        RowFilter([condition(operator, *values)])

    assert str(caught.value).startswith("spec.dataset.filter[0].values: ")
    assert part in str(caught.value)
