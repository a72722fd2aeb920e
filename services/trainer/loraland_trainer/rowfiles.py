"""Files to rows, a few at a time: JSONL, CSV, Parquet, and the first two packed by gzip.

No more than a row is in memory (of Parquet, some of a row group), however large the file. A bad row
is noted and the reading goes on, so that the first few are named together.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from loraland_core.errors import InvalidInput

from loraland_trainer.rows import BadRows, Numbered, Row

MAX_ROW_BYTES = 16 * 1024 * 1024
PARQUET_ROWS = 256
PACKED_SUFFIX = ".gz"

# A column of a CSV file may be as long as a whole row of another format.
csv.field_size_limit(MAX_ROW_BYTES)


def read_rows(file: BinaryIO, format_: str, *, where: str, bad: BadRows) -> Iterator[Numbered]:
    """Yield the rows of a file in one of the formats that a job can name."""
    if format_ == "Parquet":
        yield from _read_parquet(file, where)
        return
    read = _read_csv if format_ == "CSV" else _read_jsonl
    if not where.endswith(PACKED_SUFFIX):
        yield from read(file, where, bad)
        return
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield from read(cast("BinaryIO", unpacked), where, bad)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput(f"is not gzip: {error}", field=where, reason="InvalidRow") from error


def _read_jsonl(file: BinaryIO, where: str, bad: BadRows) -> Iterator[Numbered]:
    """Yield one row for every line that is not blank."""
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            _skip_line(file, line)
            bad.add(number, f"is longer than {MAX_ROW_BYTES} bytes", where=where)
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield from _parse_line(line, number, where, bad)


def _skip_line(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_ROW_BYTES)


def _parse_line(line: bytes, number: int, where: str, bad: BadRows) -> Iterator[Numbered]:
    try:
        text = line.decode()
        row = json.loads(text)
    except UnicodeDecodeError as error:
        bad.add(number, f"is not UTF-8 text at byte {error.start}", where=where)
    # A row may nest deeper than the parser goes.
    except (ValueError, RecursionError) as error:
        bad.add(number, f"is not JSON ({error}): {shortened(text)}", where=where)
    else:
        if isinstance(row, dict):
            yield number, row
        else:
            bad.add(number, f"is not a JSON object: {shortened(text)}", where=where)


def _read_csv(file: BinaryIO, where: str, bad: BadRows) -> Iterator[Numbered]:
    """Yield one row for every record below the header line; its number is that of its last line."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text, strict=True)
    try:
        for row in reader:
            # DictReader puts what is too much under None, and None where there is too little.
            if None in row or None in row.values():
                num_columns = len(reader.fieldnames or [])
                problem = f"does not have the {num_columns} columns of the header"
                bad.add(reader.line_num, problem, where=where)
            else:
                yield reader.line_num, dict(row)
    except csv.Error as error:
        # Where a quote is wrong, nobody knows where the next row begins.
        bad.add(reader.line_num, f"is not CSV: {error}", where=where)
    except UnicodeDecodeError as error:
        line = reader.line_num + 1
        bad.add(line, f"(or one soon after) is not UTF-8 text: {error.reason}", where=where)
    finally:
        # The caller closes the file.
        text.detach()


def _read_parquet(file: BinaryIO, where: str) -> Iterator[Numbered]:
    # Imported here: large, and other formats do without it.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    number = 0
    try:
        parquet = pq.ParquetFile(file, pre_buffer=False)
        # One group after another: asked for all, Arrow keeps those that it has decoded.
        for group in range(parquet.num_row_groups):
            for batch in parquet.iter_batches(PARQUET_ROWS, row_groups=[group], use_threads=False):
                for row in cast("list[Row]", batch.to_pylist()):
                    number += 1
                    yield number, row
    except pa.ArrowException as error:
        raise InvalidInput(f"is not Parquet: {error}", field=where, reason="InvalidRow") from error


def shortened(text: str) -> str:
    text = text.rstrip("\n")
    return text if len(text) <= 80 else f"{text[:77]}..."
