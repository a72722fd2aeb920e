"""Which rows a job uses, by conditions on their columns. Pure; nothing that a user wrote is executed."""

import json
from collections.abc import Sequence
from typing import Any

from loraland_core.errors import InvalidInput
from loraland_core.resources.dataset import FilterSpec

from loraland_trainer.rows import Row, column


class RowFilter:
    """Decides on rows, and knows afterwards how many it left out."""

    def __init__(self, conditions: Sequence[FilterSpec]) -> None:
        self._conditions = conditions
        self._bounds = [_bound(index, c) for index, c in enumerate(conditions)]
        self._unseen = {c.column for c in conditions if c.operator != "DoesNotExist"}
        self.num_left_out = 0

    @property
    def columns(self) -> list[str]:
        return [condition.column for condition in self._conditions]

    def admits(self, row: Row) -> bool:
        """Return whether the row meets every condition."""
        values = [column(row, condition.column) for condition in self._conditions]
        # Of every condition: the one that a row fails must not hide the columns of those after it.
        seen = zip(self._conditions, values, strict=True)
        self._unseen -= {condition.column for condition, value in seen if value is not None}
        for condition, bound, value in zip(self._conditions, self._bounds, values, strict=True):
            if not _meets(value, condition, bound):
                self.num_left_out += 1
                return False
        return True

    def check_columns(self) -> None:
        """Raise ``InvalidInput`` where no row at all had a column that a condition names."""
        if self._unseen:
            name = min(self._unseen)
            index = self.columns.index(name)
            raise InvalidInput(
                f"no row has a column {name!r}; check its spelling",
                field=f"spec.dataset.filter[{index}].column",
                reason="ColumnMissing",
            )


def _bound(index: int, condition: FilterSpec) -> float:
    """Return the number of a comparison; 0 for what compares none."""
    field = f"spec.dataset.filter[{index}].values"
    wants_none = condition.operator in ("Exists", "DoesNotExist")
    if wants_none == bool(condition.values):
        wanted = "no values" if wants_none else "values"
        raise InvalidInput(f"{condition.operator} takes {wanted}", field=field)
    if condition.operator not in ("Gt", "Lt"):
        return 0.0
    number = _number(condition.values[0])
    if number is None or len(condition.values) != 1:
        raise InvalidInput(
            f"{condition.operator} takes one number, found {condition.values}", field=field
        )
    return number


def _meets(value: Any, condition: FilterSpec, bound: float) -> bool:
    if condition.operator in ("Exists", "DoesNotExist"):
        return (value is not None) == (condition.operator == "Exists")
    if value is None:
        return condition.operator == "NotIn"
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    if condition.operator in ("Gt", "Lt"):
        number = _number(text)
        if number is None:
            return False
        return number > bound if condition.operator == "Gt" else number < bound
    if condition.operator == "Contains":
        return any(part in text for part in condition.values)
    return (text in condition.values) == (condition.operator == "In")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
