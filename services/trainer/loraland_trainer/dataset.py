"""Rows from wherever the job says, filtered and checked, on disk. The only reader of training data.

Every error names the place and the first bad rows; each is ``InvalidInput`` (the job is not retried)
except that a source that does not answer is ``SourceUnavailable``. Memory does not grow with the
data: files come one at a time, rows one by one, and what is kept of them lies in a spool.
"""

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loraland_core.errors import InvalidInput, Unavailable
from loraland_core.resources.dataset import DatasetSpec, HuggingFaceDataset
from loraland_core.store import StoreConfig

from loraland_trainer import examples, files, rowfiles
from loraland_trainer.config import Config
from loraland_trainer.filters import RowFilter
from loraland_trainer.rows import BadRows, PickedRows, Row, SpooledRows


class SourceUnavailable(Unavailable):
    """The place of the training data does not answer; the artifact store may be well."""


@dataclass(frozen=True)
class Rows:
    """What to learn from and what to be scored on."""

    train: Sequence[Row]
    evaluation: Sequence[Row]
    origin: str
    num_left_out: int = 0


# File or split, number within it, row.
Placed = tuple[str, int, Row]


@dataclass(frozen=True)
class _Source:
    """Where both parts come from; nothing is read before it is asked for."""

    origin: str
    train: Iterator[Placed]
    evaluation: Iterator[Placed] | None


def load_rows(
    spec: DatasetSpec,
    *,
    config: Config,
    store: StoreConfig,
    seed: int,
    max_evaluation: int,
    program: str | None = None,
) -> Rows:
    """Read the job's rows and hold some out where the job names no evaluation rows.

    All that templates and filters want of a row is checked here, before any weights are loaded.
    """
    bad = BadRows()
    row_filter = RowFilter(spec.filter)
    columns = examples.needed_columns(spec, program)
    source = _open(spec, [*columns, *row_filter.columns], config=config, store=store, bad=bad)
    parts = [
        _spool(part, spec, columns, row_filter, bad, origin=source.origin)
        for part in (source.train, source.evaluation)
        if part is not None
    ]
    fraction = float(spec.split.evaluation_fraction)
    train, held_out = parts if len(parts) == 2 else split_rows(*parts, fraction=fraction, seed=seed)
    return Rows(
        train=train,
        evaluation=sample_rows(held_out, max_evaluation, seed=seed),
        origin=source.origin,
        num_left_out=row_filter.num_left_out,
    )


def _spool(
    placed: Iterator[Placed],
    spec: DatasetSpec,
    columns: Sequence[str],
    row_filter: RowFilter,
    bad: BadRows,
    *,
    origin: str,
) -> Sequence[Row]:
    """Read a part to its end; keep what the filter admits."""
    kept = SpooledRows(columns)
    needed = examples.needed_columns(spec)
    num_left_out_before = row_filter.num_left_out
    for where, number, row in placed:
        if not row_filter.admits(row):
            continue
        problem = examples.find_problem(row, spec, needed)
        if problem is None:
            kept.append(row)
        else:
            bad.add(number, problem.text, where=where, reason=problem.reason)
    bad.raise_any()
    num_left_out = row_filter.num_left_out - num_left_out_before
    if num_left_out:
        row_filter.check_columns()
    if not kept:
        what = f"no rows but the {num_left_out} that spec.dataset.filter leaves out"
        raise InvalidInput(
            f"holds {what if num_left_out else 'no rows'}", field=origin, reason="EmptyDataset"
        )
    return kept


def split_rows(
    rows: Sequence[Row], *, fraction: float, seed: int
) -> tuple[Sequence[Row], Sequence[Row]]:
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
        PickedRows(rows, (i for i in range(len(rows)) if i not in chosen)),
        PickedRows(rows, (i for i in range(len(rows)) if i in chosen)),
    )


def sample_rows(rows: Sequence[Row], at_most: int, *, seed: int) -> Sequence[Row]:
    """Return so many of the rows, chosen by the seed: the first ones may all be of one kind."""
    if len(rows) <= at_most:
        return rows
    chosen = random.Random(seed).sample(range(len(rows)), at_most)  # noqa: S311 -- no secret
    return PickedRows(rows, sorted(chosen))


def _open(
    spec: DatasetSpec, columns: Sequence[str], *, config: Config, store: StoreConfig, bad: BadRows
) -> _Source:
    if spec.inline is not None:
        name = "dataset.inline"
        held_out = spec.inline.evaluation_rows
        return _Source(
            name,
            _from_text(spec.inline.rows, f"{name}.rows", bad),
            _from_text(held_out, f"{name}.evaluationRows", bad) if held_out else None,
        )
    if spec.hugging_face is not None:
        return _open_hub(spec.hugging_face, spec, columns, config)
    if spec.s3 is not None:
        bucket = files.Bucket(store, config.dataset_credentials)
        where: files.Place = bucket
        uri, evaluation_uri = spec.s3.uri, spec.s3.evaluation_uri
    elif spec.pvc is not None:
        where = files.Volume(config.dataset_mount, spec.pvc.claim)
        uri, evaluation_uri = spec.pvc.path, spec.pvc.evaluation_path
    else:
        raise InvalidInput("exactly one of s3, huggingFace, pvc and inline", field="spec.dataset")
    return _Source(
        uri,
        _from_files(where, uri, spec.format, bad),
        _from_files(where, evaluation_uri, spec.format, bad) if evaluation_uri else None,
    )


def _from_text(text: str, where: str, bad: BadRows) -> Iterator[Placed]:
    file = io.BytesIO(text.encode())
    for number, row in rowfiles.read_rows(file, "JSONL", where=where, bad=bad):
        yield where, number, row


def _from_files(place: files.Place, names: str, format_: str, bad: BadRows) -> Iterator[Placed]:
    try:
        for name, file in place.open_all(names):
            for number, row in rowfiles.read_rows(file, format_, where=name, bad=bad):
                yield name, number, row
    except Unavailable as error:
        # Not the artifact store: the pod's end must not say so.
        raise SourceUnavailable(str(error)) from error


def _open_hub(
    source: HuggingFaceDataset, spec: DatasetSpec, columns: Sequence[str], config: Config
) -> _Source:
    # Imported here: takes seconds, and only this source needs it.
    from loraland_trainer import hub  # noqa: PLC0415

    try:
        repository = hub.open_repository(source, token=config.hub_token)
    except Unavailable as error:
        raise SourceUnavailable(str(error)) from error

    def read(split: str) -> Iterator[Placed]:
        where = f"{repository.name}[{split}]"
        try:
            for number, row in enumerate(repository.read_split(split, columns), start=1):
                yield where, number, row
        except Unavailable as error:
            raise SourceUnavailable(str(error)) from error

    held_out = spec.split.evaluation
    return _Source(repository.name, read(spec.split.train), read(held_out) if held_out else None)


def parse_jsonl(text: str, *, where: str) -> list[Row]:
    """Return one row for every line that is not blank."""
    return parse_rows(text.encode(), "JSONL", where=where)


def parse_rows(data: bytes, format_: str, *, where: str) -> list[Row]:
    """Return the rows of a small file; raise ``InvalidInput`` where it holds none."""
    bad = BadRows()
    placed = rowfiles.read_rows(io.BytesIO(data), format_, where=where, bad=bad)
    rows: list[Any] = [row for _, row in placed]
    bad.raise_any()
    if not rows:
        raise InvalidInput("holds no rows", field=where, reason="EmptyDataset")
    return rows
