"""Rows are read from text, and a bad row is named."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trainer_jobs
from loraland_core.errors import InvalidInput
from loraland_core.resources.dataset import DatasetSpec
from loraland_core.store import StoreConfig
from loraland_trainer import dataset

STORE = StoreConfig(bucket="unused")


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "format_", "expected"),
    [
        pytest.param(
            b'{"a": 1}\n\n{"a": "\xc3\xa9"}\n', "JSONL", [{"a": 1}, {"a": "é"}], id="jsonl"
        ),
        pytest.param(
            '{"a": "x\u2028y"}'.encode(), "JSONL", [{"a": "x\u2028y"}], id="line-separator-in-text"
        ),
        pytest.param(
            b"\xef\xbb\xbfa,b\r\n1,two\r\n", "CSV", [{"a": "1", "b": "two"}], id="csv-bom"
        ),
        pytest.param(b'a\n"x\ny"\n', "CSV", [{"a": "x\ny"}], id="csv-line-break-in-quotes"),
        pytest.param(parquet([{"a": 1}]), "Parquet", [{"a": 1}], id="parquet"),
    ],
)
def test_formats_are_read(data: bytes, format_: str, expected: list[dict[str, Any]]) -> None:
    """Each format gives plain dictionaries."""
    rows = dataset.parse_rows(data, format_, where="rows")

    assert expected == rows


@pytest.mark.parametrize(
    ("data", "format_", "reason", "part"),
    [
        pytest.param(b"", "JSONL", "EmptyDataset", "rows: holds no rows", id="empty"),
        pytest.param(b"\n \n", "JSONL", "EmptyDataset", "holds no rows", id="blank"),
        pytest.param(b'{"a":1}\n{"a":', "JSONL", "InvalidRow", "row 2 is not JSON", id="not-json"),
        pytest.param(
            b'{"a":1}\n' + b"[" * 100_000, "JSONL", "InvalidRow", "row 2 is not JSON", id="deep"
        ),
        pytest.param(b'{"a":1}\n\n[1]', "JSONL", "InvalidRow", "row 3 is not a JSON o", id="list"),
        pytest.param(b"\xff\xfe", "JSONL", "InvalidRow", "not UTF-8 text at byte 0", id="bytes"),
        pytest.param(b"a,b\n1\n", "CSV", "InvalidRow", "row 2 does not have the 2", id="csv-short"),
        pytest.param(b"a\n1,2\n", "CSV", "InvalidRow", "row 2 does not have the 1", id="csv-long"),
        pytest.param(b"a\n", "CSV", "EmptyDataset", "holds no rows", id="csv-header-only"),
        pytest.param(b"PAR0", "Parquet", "InvalidRow", "is not Parquet", id="not-parquet"),
    ],
)
def test_bad_files_are_refused(data: bytes, format_: str, reason: str, part: str) -> None:
    """The error names the file, the row and what is wrong with it."""
    with pytest.raises(InvalidInput) as caught:
        dataset.parse_rows(data, format_, where="rows")

    assert reason == caught.value.reason
    assert part in str(caught.value)


def test_a_missing_column_is_named_with_those_present() -> None:
    """The person who wrote the template sees what the rows have."""
    rows = [{"a": 1, "b": 2}, {"a": 1, "b": None}]

    with pytest.raises(InvalidInput) as caught:
        dataset.check_columns(rows, ["a", "b"], where="training rows")

    assert "training rows: row 2 has no column 'b'" in str(caught.value)
    assert "its columns: a, b" in str(caught.value)


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

    assert expected == dataset.column(row, name)


def test_held_out_rows_are_chosen_by_the_seed() -> None:
    """The same seed holds out the same rows, another one others; none is in both parts."""
    rows = [{"n": n} for n in range(100)]

    train, held_out = dataset.split_rows(rows, fraction=0.1, seed=7)

    assert (len(train), len(held_out)) == (90, 10)
    assert (train, held_out) == dataset.split_rows(rows, fraction=0.1, seed=7)
    assert held_out != dataset.split_rows(rows, fraction=0.1, seed=8)[1]
    assert not [row for row in held_out if row in train]


@pytest.mark.parametrize(
    ("num_rows", "fraction", "part"),
    [
        pytest.param(1, 0.1, "1 rows are too few to hold out 1", id="one-row"),
        pytest.param(9, 0.0, "must lie between 0 and 1, found 0.0", id="nothing"),
        pytest.param(9, 1.0, "must lie between 0 and 1, found 1.0", id="everything"),
    ],
)
def test_impossible_splits_are_refused(num_rows: int, fraction: float, part: str) -> None:
    """Some rows must be left to learn from, and some to be scored on."""
    with pytest.raises(InvalidInput, match=part):
        dataset.split_rows([{}] * num_rows, fraction=fraction, seed=0)


def load(folder: Path, spec: dict[str, Any], *, max_evaluation: int = 64) -> dataset.Rows:
    return dataset.load_rows(
        DatasetSpec.model_validate(trainer_jobs.DATASET | {"inline": None} | spec),
        config=trainer_jobs.build_config(folder),
        store=STORE,
        seed=0,
        max_evaluation=max_evaluation,
    )


def test_inline_rows_come_from_the_job_itself(tmp_path: Path) -> None:
    """Training and evaluation rows stand in the spec."""
    rows = load(tmp_path, {"inline": trainer_jobs.INLINE}, max_evaluation=1)

    assert rows.train == trainer_jobs.ROWS
    assert trainer_jobs.ROWS[:1] == rows.evaluation


def test_rows_come_from_a_volume(tmp_path: Path) -> None:
    """Files of a mounted volume, one for training and one for evaluation."""
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "train.csv").write_text("word\nx\ny\n")
    (tmp_path / "dataset" / "test.csv").write_text("word\nz\n")
    pvc = {"claim": "rows", "path": "train.csv", "evaluationPath": "/test.csv"}

    rows = load(tmp_path, {"pvc": pvc, "format": "CSV"})

    assert rows == dataset.Rows(train=[{"word": "x"}, {"word": "y"}], evaluation=[{"word": "z"}])


@pytest.mark.parametrize(
    ("path", "part"),
    [
        pytest.param("absent.jsonl", "no file 'absent.jsonl'; at its top: rows.jsonl", id="absent"),
        pytest.param("../secret", "leads out of the volume", id="outside"),
    ],
)
def test_a_volume_has_its_limits(tmp_path: Path, path: str, part: str) -> None:
    """A file that is not there is refused with what is; nothing outside is read."""
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "rows.jsonl").write_text("{}")
    (tmp_path / "secret").write_text("{}")

    with pytest.raises(InvalidInput) as caught:
        load(tmp_path, {"pvc": {"claim": "rows", "path": path}})

    assert part in str(caught.value)
