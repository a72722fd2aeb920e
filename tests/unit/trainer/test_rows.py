"""Columns of a row, and the form in which rows lie on disk."""

import datetime as dt
import decimal
from typing import Any

import pytest
from loraland_core.errors import InvalidInput
from loraland_trainer import rows


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("a", 1, id="column"),
        pytest.param("sql.text", "SELECT", id="field-of-an-object"),
        pytest.param("a.b", 2, id="a-column-with-a-dot-in-its-name-comes-first"),
        pytest.param("sql.absent", None, id="no-such-field"),
        pytest.param("a.absent", None, id="no-object"),
    ],
)
def test_a_column_may_be_a_field_of_an_object(name: str, expected: Any) -> None:
    """Public data sets nest what a template needs."""
    row = {"a": 1, "a.b": 2, "sql": {"text": "SELECT"}}

    assert expected == rows.column(row, name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("é\u2028\ud800", "é\u2028\ud800", id="any-text"),
        pytest.param([1, {"b": None}], [1, {"b": None}], id="nested"),
        pytest.param(dt.date(2026, 1, 2), "2026-01-02", id="date"),
        pytest.param(decimal.Decimal("1.50"), "1.50", id="exact-number"),
        pytest.param(b"abc", "abc", id="bytes"),
    ],
)
def test_spooled_rows_come_back(value: Any, expected: Any) -> None:
    """What a template writes survives the disk; other columns are not kept."""
    spooled = rows.SpooledRows(["a"])
    spooled.append({"a": value, "b": object()})

    assert list(spooled) == [{"a": expected}]


def test_a_column_that_no_template_can_write_is_refused() -> None:
    """The error names what the column holds."""
    with pytest.raises(InvalidInput, match="a column holds a set"):
        rows.SpooledRows(["a"]).append({"a": {1}})


def test_spooled_rows_are_a_sequence() -> None:
    """Any row, from either end, and several at once."""
    spooled = rows.SpooledRows(["n"])
    for n in range(5):
        spooled.append({"n": n})
    picked = rows.PickedRows(spooled, [1, 3])

    assert (spooled[-1], spooled[1:3], len(spooled)) == ({"n": 4}, [{"n": 1}, {"n": 2}], 5)
    assert (list(picked), picked[0:1], picked[-1]) == (
        [{"n": 1}, {"n": 3}],
        [{"n": 1}],
        {"n": 3},
    )
    with pytest.raises(IndexError):
        spooled[5]
