"""Memory does not grow with the data: files larger than what the process may take are read."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import measured_reading
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import servers
import trainer_jobs
from loraland_core.jobspec import JobSpec
from loraland_core.store import Store, StoreConfig

NUM_ROWS = 8000
ROW_BYTES = 24_000
# Of files of 195 MB: Arrow takes some 80 MB for itself and boto3 some 30, of a small file as of a
# large one; what is read line by line takes next to nothing.
MAX_GROWN_BYTES = 150_000_000
MAX_GROWN_BY_LINES_BYTES = 16_000_000


def rows() -> Iterator[dict[str, str]]:
    for number in range(NUM_ROWS):
        text = f"{number:08d}"
        yield {"word": text * 50, "upper": text, "more": text * (ROW_BYTES // 8)}


def write_jsonl(path: Path) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows())


def write_csv(path: Path) -> None:
    with path.open("w") as file:
        file.write("word,upper,more\n")
        file.writelines(f"{','.join(row.values())}\n" for row in rows())


def write_parquet(path: Path) -> None:
    schema = pa.schema([(name, pa.string()) for name in ("word", "upper", "more")])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        batch: list[dict[str, str]] = []
        for row in rows():
            batch.append(row)
            if len(batch) == 500:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []


def measure(jobs: Mapping[str, JobSpec], folder: Path) -> dict[str, dict[str, int]]:
    """Return for each job, read one after another by one process, rows and growth so far."""
    for name, job in jobs.items():
        (folder / name).write_text(job.to_json())
    ended = subprocess.run(
        [sys.executable, measured_reading.__file__, str(folder), *jobs],
        env={
            "PYTHONPATH": ":".join(sys.path),
            "OMP_NUM_THREADS": "1",
            "HOME": str(folder),
            "AWS_ACCESS_KEY_ID": servers.S3_CREDENTIALS["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": servers.S3_CREDENTIALS["aws_secret_access_key"],
        },
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, dict[str, int]] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_memory_stays_when_the_data_grows(
    store: Store, store_config: StoreConfig, tmp_path: Path
) -> None:
    """Neither files nor rows nor tokens pile up, whatever the format and wherever it lies."""
    volume = tmp_path / "dataset"
    volume.mkdir()
    for name, write in {"JSONL": write_jsonl, "CSV": write_csv, "Parquet": write_parquet}.items():
        write(volume / name)
        assert (volume / name).stat().st_size > 1.25 * MAX_GROWN_BYTES
    store.upload(volume / "JSONL", "rows/1.jsonl")
    store.write("rows/2.jsonl", json.dumps(next(rows())).encode())
    templates = trainer_jobs.DATASET | {"inline": None}
    data: dict[str, dict[str, Any]] = {
        name: {"pvc": {"claim": "rows", "path": name}, "format": name}
        for name in ("JSONL", "CSV", "Parquet")
    }
    data["S3"] = {"s3": {"uri": store.uri("rows/*.jsonl")}}
    jobs = {
        name: trainer_jobs.build_job(store_config, dataset=templates | source)
        for name, source in data.items()
    }

    found = measure(jobs, tmp_path)

    assert [read["rows"] for read in found.values()] == [NUM_ROWS] * 3 + [NUM_ROWS + 1]
    assert max(read["grownBytes"] for read in found.values()) < MAX_GROWN_BYTES, found
    assert max(found[name]["grownBytes"] for name in ("JSONL", "CSV")) < MAX_GROWN_BY_LINES_BYTES
