"""Rows from wherever the job says, as plain dictionaries. The only reader of training data.

Every error names the place and, for a bad row, its number; each is ``InvalidInput`` (the job is not
retried) except that a source that does not answer is ``SourceUnavailable``.
"""

import csv
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from loraland_core.errors import InvalidInput, NotFound, Unavailable
from loraland_core.resources.dataset import DatasetSpec, HuggingFaceDataset
from loraland_core.store import Store, StoreConfig, parse_uri

from loraland_trainer.config import Config

MAX_DATASET_BYTES = 4 * 1024**3

Row = dict[str, Any]


class SourceUnavailable(Unavailable):
    """The place of the training data does not answer; the artifact store may be well."""


@dataclass(frozen=True)
class Rows:
    """What to learn from and what to be scored on."""

    train: list[Row]
    evaluation: list[Row]


def load_rows(
    spec: DatasetSpec, *, config: Config, store: StoreConfig, seed: int, max_evaluation: int
) -> Rows:
    """Read the job's rows and hold some out where the job names no evaluation rows.

    Columns that the templates name are checked here, before any weights are loaded.
    """
    if spec.inline is not None:
        train = parse_jsonl(spec.inline.rows, where="dataset.inline.rows")
        text = spec.inline.evaluation_rows
        held_out = text and parse_jsonl(text, where="dataset.inline.evaluationRows")
    elif spec.s3 is not None:
        train = _from_s3(spec.s3.uri, spec.format, config, store)
        uri = spec.s3.evaluation_uri
        held_out = uri and _from_s3(uri, spec.format, config, store)
    elif spec.pvc is not None:
        train = _from_volume(spec.pvc.path, spec.format, config)
        path = spec.pvc.evaluation_path
        held_out = path and _from_volume(path, spec.format, config)
    elif spec.hugging_face is not None:
        train = _from_hub(spec.hugging_face, spec.split.train, config)
        split = spec.split.evaluation
        held_out = split and _from_hub(spec.hugging_face, split, config)
    else:
        raise InvalidInput("exactly one of s3, huggingFace, pvc and inline", field="spec.dataset")
    if not held_out:
        train, held_out = split_rows(
            train, fraction=float(spec.split.evaluation_fraction), seed=seed
        )
    return Rows(train=train, evaluation=held_out[:max_evaluation])


def split_rows(rows: list[Row], *, fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Hold out a share of the rows, chosen by the seed; both parts keep their order."""
    if not 0 < fraction < 1:
        raise InvalidInput(
            f"must lie between 0 and 1, found {fraction}",
            field="spec.dataset.split.evaluationFraction",
        )
    num_held_out = max(1, round(len(rows) * fraction))
    if num_held_out >= len(rows):
        raise InvalidInput(
            f"{len(rows)} rows are too few to hold out {num_held_out}; add rows",
            field="spec.dataset",
            reason="EmptyDataset",
        )
    chosen = set(random.Random(seed).sample(range(len(rows)), num_held_out))  # noqa: S311 -- no secret
    return (
        [row for i, row in enumerate(rows) if i not in chosen],
        [row for i, row in enumerate(rows) if i in chosen],
    )


def parse_jsonl(text: str, *, where: str) -> list[Row]:
    """Return one row for every line that is not blank."""
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        # A row may nest deeper than the parser goes.
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                f"row {number} is not JSON ({error}): {_shortened(line)}",
                field=where,
                reason="InvalidRow",
            ) from error
        if not isinstance(row, dict):
            raise InvalidInput(
                f"row {number} is not a JSON object: {_shortened(line)}",
                field=where,
                reason="InvalidRow",
            )
        rows.append(row)
    return _not_empty(rows, where)


def parse_csv(text: str, *, where: str) -> list[Row]:
    """Return one row for every record below the header line."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise InvalidInput(
                    f"row {reader.line_num} does not have the {len(reader.fieldnames or [])}"
                    " columns of the header",
                    field=where,
                    reason="InvalidRow",
                )
            rows.append(dict(row))
    except csv.Error as error:
        raise InvalidInput(
            f"row {reader.line_num} is not CSV: {error}", field=where, reason="InvalidRow"
        ) from error
    return _not_empty(rows, where)


def parse_parquet(data: bytes, *, where: str) -> list[Row]:
    # Imported here: large, and other formats do without it.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        table = pq.read_table(io.BytesIO(data))
    except pa.ArrowException as error:
        raise InvalidInput(f"is not Parquet: {error}", field=where, reason="InvalidRow") from error
    return _not_empty(cast("list[Row]", table.to_pylist()), where)


def parse_rows(data: bytes, format_: str, *, where: str) -> list[Row]:
    """Return the rows of a file in one of the formats that a job can name."""
    if format_ == "Parquet":
        return parse_parquet(data, where=where)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"is not UTF-8 text at byte {error.start}", field=where, reason="InvalidRow"
        ) from error
    return parse_csv(text, where=where) if format_ == "CSV" else parse_jsonl(text, where=where)


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


def check_columns(rows: Sequence[Row], needed: Sequence[str], *, where: str) -> None:
    """Raise ``InvalidInput`` for the first row that lacks a column, listing those it has."""
    for number, row in enumerate(rows, start=1):
        missing = [name for name in needed if column(row, name) is None]
        if missing:
            raise InvalidInput(
                f"row {number} has no column {missing[0]!r}, which the templates name;"
                f" its columns: {', '.join(sorted(row)) or 'none'}",
                field=where,
                reason="ColumnMissing",
            )


def _from_s3(uri: str, format_: str, config: Config, store: StoreConfig) -> list[Row]:
    bucket, key = parse_uri(uri)
    door = Store(
        store.model_copy(update={"bucket": bucket, "prefix": ""}),
        credentials=config.dataset_credentials or None,
    )
    try:
        data = door.read(key, max_bytes=MAX_DATASET_BYTES)
    except NotFound as error:
        raise InvalidInput(
            "there is no such object; check the key", field=uri, reason="DatasetNotFound"
        ) from error
    except Unavailable as error:
        raise SourceUnavailable(str(error)) from error
    finally:
        door.close()
    return parse_rows(data, format_, where=uri)


def _from_volume(path: str, format_: str, config: Config) -> list[Row]:
    mount = config.dataset_mount.resolve()
    file = (mount / path.lstrip("/")).resolve()
    if not file.is_relative_to(mount):
        raise InvalidInput("leads out of the volume", field=f"spec.dataset.pvc.path {path!r}")
    if not file.is_file():
        present = sorted(p.name for p in mount.iterdir())[:10] if mount.is_dir() else []
        raise InvalidInput(
            f"the volume has no file {path!r}; at its top: {', '.join(present) or 'nothing'}",
            field="spec.dataset.pvc.path",
            reason="DatasetNotFound",
        )
    return parse_rows(Path(file).read_bytes(), format_, where=path)


def _from_hub(source: HuggingFaceDataset, split: str, config: Config) -> list[Row]:
    # Imported here: takes seconds, and only this source needs it.
    from loraland_trainer import hub  # noqa: PLC0415

    rows = hub.read_split(source, split, token=config.hub_token)
    return _not_empty(rows, f"{source.repo}[{split}]")


def _not_empty(rows: list[Row], where: str) -> list[Row]:
    if not rows:
        raise InvalidInput("holds no rows", field=where, reason="EmptyDataset")
    return rows


def _shortened(line: str) -> str:
    return line if len(line) <= 80 else f"{line[:77]}..."
