"""Trains an adapter for each of six tasks with public rows and scores base and tuned model.

The real trainer, a process as a pod's, against an S3 server of this machine; rows from
``LORALAND_DATASETS`` or ``../shared/datasets``. Trained over NF4 and scored over int8, as the laptop's
catalogue says. Prints the table of docs/results.md; ``--json FILE`` keeps the numbers after each task::

    python benchmarks/quality.py --json quality.json
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import quality_tasks
import quickstart
from loraland_core.catalogue import BaseModelEntry
from loraland_core.jobspec import DATASET_MOUNT, JobSpec
from loraland_core.resources import FineTuneJob
from loraland_core.store import StoreConfig
from quality_tasks import Task

BASE = "smollm2-135m-instruct"
DATASETS = Path(__file__).parents[2] / "shared" / "datasets"


def build_job(task: Task, settings: argparse.Namespace, store: StoreConfig) -> JobSpec:
    """Return the task's job; its rows are on a volume."""
    spec = {
        "baseModel": BASE,
        "method": "QLoRA",
        "lora": {
            "rank": settings.rank,
            "alpha": 2 * settings.rank,
            "targetModules": ["all-linear"],
        },
        "training": {
            "maxSteps": settings.steps,
            "batchSize": settings.rows,
            "gradientAccumulation": 1,
            "learningRate": settings.learning_rate,
            "maxSequenceLength": task.max_tokens,
        },
        "evaluation": {
            "metrics": list(task.metrics),
            "maxSamples": settings.samples,
            "maxNewTokens": task.max_new_tokens,
        },
        "dataset": {
            "pvc": {"claim": "rows", "path": "train.jsonl", "evaluationPath": "test.jsonl"},
            "prompt": task.prompt,
            "completion": task.completion,
        },
    }
    document = {"metadata": {"name": task.name, "namespace": "results"}, "spec": spec}
    entry = {
        "source": {"embedded": BASE},
        "training": {"dtype": "float32"},
        "serving": {"dtype": "float32", "quantization": "int8"},
    }
    return JobSpec(
        name=task.name,
        namespace="results",
        uid=f"{task.name}-{settings.steps}",
        adapter_name=task.name,
        base_model=BaseModelEntry.model_validate(entry),
        store=store,
        spec=FineTuneJob.model_validate(document).spec,
    )


def read_rows(task: Task, folder: Path) -> dict[str, str]:
    """Return the files of the job's volume."""
    files = {}
    for name in ("train.jsonl", "test.jsonl"):
        rows = [json.loads(line) for line in (folder / task.folder / name).open()]
        files[name] = "".join(json.dumps(task.prepare(row)) + "\n" for row in rows)
    return files


def print_table(runs: Mapping[str, dict[str, Any]], settings: Mapping[str, Any]) -> None:
    print(f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {settings}")
    print("| task | metric | base | tuned | training, s | tokens a second | whole job, s |")
    print("|---|---|---|---|---|---|---|")
    for name, run in runs.items():
        times = [f"{run[k]:.0f}" for k in ("trainSeconds", "tokensPerSecond", "wallSeconds")]
        for place, (metric, score) in enumerate(run["scores"].items()):
            cells = [name, metric, f"{score['base']:.3f}", f"**{score['tuned']:.3f}**"]
            print("|", " | ".join([*cells, *(times if place == 0 else [""] * 3)]), "|")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--tasks", nargs="+", help="only these")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, default=16, help="rows a step")
    parser.add_argument("--samples", type=int, default=100, help="held-out rows scored")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", default="0.002")
    parser.add_argument("--cache", type=Path, default=quickstart.CACHE)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    folder = Path(os.environ.get("LORALAND_DATASETS") or DATASETS)
    if not folder.is_dir():
        raise SystemExit(f"no rows in {folder}; set LORALAND_DATASETS to the folder that has them")
    wanted = [t for t in quality_tasks.TASKS if t.name in (arguments.tasks or [t.name])]
    shown = ("steps", "rows", "samples", "rank", "learning_rate")
    settings = {name: getattr(arguments, name) for name in shown}
    runs: dict[str, dict[str, Any]] = {}
    with quickstart.served_bucket() as store, tempfile.TemporaryDirectory() as name:
        for task in wanted:
            job = build_job(task, arguments, store)
            volume = {
                f"{DATASET_MOUNT.lstrip('/')}/{file}": text
                for file, text in read_rows(task, folder).items()
            }
            root = Path(name) / task.name
            runs[task.name] = quickstart.run(job, arguments.cache, root=root, files=volume)
            print_table(runs, settings)
            if arguments.json:
                document = {"schemaVersion": 1, "settings": settings, "runs": runs}
                arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
