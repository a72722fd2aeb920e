"""Reads a job's rows and makes examples of them in a process of its own; prints what that took.

``python measured_reading.py FOLDER JOB_FILE...`` prints JSON: for each job its rows, and by how many
bytes the process has grown so far beyond what it had before it read anything.
"""

import importlib
import json
import sys
from pathlib import Path

import tiny_base
import trainer_jobs
from loraland_core import jobspec
from loraland_core.store import Store
from loraland_trainer import dataset, examples

MAX_TOKENS = 64


def peak_bytes() -> int:
    """Return the most that this program had in memory; getrusage would count its parent's too."""
    status = Path("/proc/self/status").read_text()
    [peak] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peak.split()[1]) * 1024


def read(job: jobspec.JobSpec, folder: Path) -> int:
    """Return the number of rows; each of them is looked at once more at the end."""
    spec = job.spec.dataset
    rows = dataset.load_rows(
        spec,
        config=trainer_jobs.build_config(folder),
        store=job.store,
        seed=0,
        max_evaluation=1_000_000,
    )
    built = examples.build_examples(
        rows.train, spec, tiny_base.build_tokenizer(), max_tokens=MAX_TOKENS
    )
    assert all(example.num_tokens == MAX_TOKENS for example in built)
    return len(built) + len(rows.evaluation)


def main(folder: str, *names: str) -> None:
    jobs = {name: jobspec.parse_job((Path(folder) / name).read_text()) for name in names}
    # What reading needs of libraries is not the data's.
    importlib.import_module("pyarrow.parquet")
    for job in jobs.values():
        Store(job.store).close()
    before = peak_bytes()
    found = {}
    for name, job in jobs.items():
        num_rows = read(job, Path(folder))
        found[name] = {"rows": num_rows, "grownBytes": peak_bytes() - before}
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
