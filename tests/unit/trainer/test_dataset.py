"""Rows are read from text, and a bad row is named."""

import gzip
import io
import json
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
from loraland_trainer.rows import Row

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


def split(rows: list[dict[str, Any]], *, seed: int) -> tuple[list[Row], list[Row]]:
    train, held_out = dataset.split_rows(rows, fraction=0.1, seed=seed)
    return list(train), list(held_out)


def test_held_out_rows_are_chosen_by_the_seed() -> None:
    """The same seed holds out the same rows, another one others; none is in both parts."""
    rows = [{"n": n} for n in range(100)]

    train, held_out = split(rows, seed=7)

    assert (len(train), len(held_out)) == (90, 10)
    assert (train, held_out) == split(rows, seed=7)
    assert held_out != split(rows, seed=8)[1]
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

    assert list(rows.train) == trainer_jobs.ROWS
    assert len(rows.evaluation) == 1
    assert rows.evaluation[0] in trainer_jobs.ROWS[:2]


def test_rows_come_from_a_volume(tmp_path: Path) -> None:
    """Files of a mounted volume, one for training and one for evaluation."""
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "train.csv").write_text("word,upper,more\nx,X,1\ny,Y,2\n")
    (tmp_path / "dataset" / "test.csv").write_text("word,upper\nz,Z\n")
    pvc = {"claim": "rows", "path": "train.csv", "evaluationPath": "/test.csv"}

    rows = load(tmp_path, {"pvc": pvc, "format": "CSV"})

    assert list(rows.train) == [{"word": "x", "upper": "X"}, {"word": "y", "upper": "Y"}]
    assert list(rows.evaluation) == [{"word": "z", "upper": "Z"}]


@pytest.mark.parametrize(
    ("path", "part"),
    [
        pytest.param("absent.jsonl", "no file of that name; at its top: rows.jsonl", id="absent"),
        pytest.param(
            "*.csv", "no name in the volume of claim rows matches; there are: rows.jsonl", id="glob"
        ),
        pytest.param("../*", "leads out of the volume", id="glob-outside"),
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


def write_lines(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def word(text: str, **more: Any) -> dict[str, Any]:
    return {"word": text, "upper": text.upper(), **more}


def words(rows: dataset.Rows) -> list[str]:
    return sorted(row["word"] for row in [*rows.train, *rows.evaluation])


def test_a_name_with_wildcards_means_several_files(tmp_path: Path) -> None:
    """Files of any depth, packed or not, in the order of their names; others are left alone."""
    folder = tmp_path / "dataset" / "days"
    write_lines(folder / "1.jsonl", word("a"))
    write_lines(folder / "2" / "2.jsonl.gz", word("b"), word("c"))
    (folder / "notes.txt").write_text("no rows")

    rows = load(tmp_path, {"pvc": {"claim": "rows", "path": "days/**/*.jsonl*"}})

    assert words(rows) == ["a", "b", "c"]
    assert rows.origin == "days/**/*.jsonl*"


def test_the_first_bad_rows_are_named_together(tmp_path: Path) -> None:
    """One run tells of several, each with its file, and not of thousands."""
    folder = tmp_path / "dataset"
    write_lines(folder / "a.jsonl", word("a"), {"word": "b"})
    (folder / "b.jsonl").write_text("{}\nno\n[1]\n" + "{}\n" * 1000)

    with pytest.raises(InvalidInput) as caught:
        load(tmp_path, {"pvc": {"claim": "rows", "path": "*.jsonl"}})

    said = str(caught.value)
    assert caught.value.reason == "ColumnMissing"
    assert said.startswith("a.jsonl: row 2 has no column 'upper', which the templates name;")
    assert "b.jsonl: row 2 is not JSON" in said
    assert "b.jsonl: row 3 is not a JSON object: [1]" in said
    assert said.endswith("the rows after these were not looked at")
    assert said.count("row ") == 5


def test_filters_leave_rows_out_before_anything_is_asked_of_them(tmp_path: Path) -> None:
    """A row that lacks a column is no bad row if it is not used; the count is kept."""
    write_lines(
        tmp_path / "dataset" / "rows.jsonl",
        *[word(text, stars=5) for text in "abcd"],
        {"stars": 1},
        {"word": "e", "stars": 2},
    )
    condition = {"column": "stars", "operator": "Gt", "values": ["3"]}

    rows = load(tmp_path, {"pvc": {"claim": "rows", "path": "rows.jsonl"}, "filter": [condition]})

    assert (words(rows), rows.num_left_out) == (["a", "b", "c", "d"], 2)


@pytest.mark.parametrize(
    ("values", "column", "part"),
    [
        pytest.param(
            ["9"], "stars", "but the 1 that spec.dataset.filter leaves out", id="all-left-out"
        ),
        pytest.param(
            ["9"], "starz", "filter[0].column: no row has a column 'starz'", id="misspelt-column"
        ),
    ],
)
def test_a_filter_that_leaves_nothing_is_said(
    tmp_path: Path, values: list[str], column: str, part: str
) -> None:
    """An empty data set is not the rows' fault."""
    write_lines(tmp_path / "dataset" / "rows.jsonl", word("a", stars=1))
    condition = {"column": column, "operator": "In", "values": values}

    with pytest.raises(InvalidInput) as caught:
        load(tmp_path, {"pvc": {"claim": "rows", "path": "rows.jsonl"}, "filter": [condition]})

    assert part in str(caught.value)


def test_evaluation_rows_are_sampled_by_the_seed() -> None:
    """The first rows of a sorted file would all be of one kind."""
    rows: list[Row] = [{"n": n} for n in range(1000)]

    sampled = [row["n"] for row in dataset.sample_rows(rows, 20, seed=3)]

    assert sampled == sorted(sampled)
    assert sampled == [row["n"] for row in dataset.sample_rows(rows, 20, seed=3)]
    assert sampled[-1] > 500
    assert dataset.sample_rows(rows, 1000, seed=3) is rows
