"""What a row is: its columns, its form on disk, and what is said of a bad one. Pure but for the spool."""

import datetime as dt
import decimal
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from loraland_core.errors import InvalidInput

from loraland_trainer.spool import Spool

Row = dict[str, Any]
# A row and its number within its file, counted from 1.
Numbered = tuple[int, Row]

NUM_BAD_ROWS_NAMED = 5


def column(row: Row, name: str) -> Any:
    """Return the row's value; ``a.b`` is the field ``b`` of the object in column ``a``."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


class BadRows:
    """Collects what is wrong with the rows of a source; enough of it ends the reading."""

    def __init__(self, limit: int = NUM_BAD_ROWS_NAMED) -> None:
        self._limit = limit
        self._found: list[tuple[str, str, str]] = []

    def add(self, number: int, problem: str, *, where: str, reason: str = "InvalidRow") -> None:
        """Note that a row ``problem``, such as "is not JSON"."""
        self._found.append((where, f"row {number} {problem}", reason))
        if len(self._found) >= self._limit:
            self.raise_any(is_end=False)

    def raise_any(self, *, is_end: bool = True) -> None:
        """Raise ``InvalidInput`` naming the rows noted so far, if there are any."""
        if not self._found:
            return
        first_where, _, reason = self._found[0]
        texts = [
            text if where == first_where else f"{where}: {text}" for where, text, _ in self._found
        ]
        if not is_end:
            texts.append("the rows after these were not looked at")
        raise InvalidInput("; ".join(texts), field=first_where, reason=reason)


class SpooledRows(Sequence[Row]):
    """Rows on disk, with the columns that are needed and no others."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._spool = Spool()

    def append(self, row: Row) -> None:
        kept = {name: column(row, name) for name in self._columns}
        self._spool.append(json.dumps(kept, default=_as_text).encode())

    def __len__(self) -> int:
        return len(self._spool)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row: Row = json.loads(self._spool.read(range(len(self))[index]))
        return row

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))


class PickedRows(Sequence[Row]):
    """Some of other rows, in their order."""

    def __init__(self, rows: Sequence[Row], indices: Iterable[int]) -> None:
        self._rows = rows
        self._indices = array("Q", indices)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self._rows[i] for i in self._indices[index]]
        return self._rows[self._indices[index]]


def _as_text(value: Any) -> Any:
    """Return what JSON has no form for, as a template writes it: dates, exact numbers, bytes."""
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (decimal.Decimal, dt.timedelta)):
        return str(value)
    raise InvalidInput(
        f"a column holds a {type(value).__name__}, which a template cannot write; choose columns of"
        " text, numbers and lists",
        field="spec.dataset",
        reason="InvalidRow",
    )
