"""Trains the quickstart's job by each method and scores it at each serving precision.

One run of the real trainer for every pair, against an S3 server of this machine. Prints a table;
``--json FILE`` keeps the numbers. Some minutes a run on two cores::

    python benchmarks/quickstart.py --json quickstart.json
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import yaml
from loraland_core import artifacts
from loraland_core.catalogue import BaseModelEntry
from loraland_core.jobspec import JobSpec
from loraland_core.resources import FineTuneJob
from loraland_core.store import Store, StoreConfig
from moto.server import ThreadedMotoServer

JOB = Path(__file__).parents[1] / "examples" / "quickstart" / "job.yaml"
PAIRS = [("QLoRA", "nf4"), ("QLoRA", "none"), ("LoRA", "none"), ("LoRA", "nf4")]
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}
LIMIT_S = 1800
CACHE = Path(tempfile.gettempdir()) / "loraland-bench"
PROGRESS_PORT = "19400"


def build_job(method: str, quantization: str, seed: int, store: StoreConfig) -> JobSpec:
    """Return the quickstart's job with another method, serving precision and seed."""
    document = yaml.safe_load(JOB.read_text())
    document["spec"]["method"] = method
    document["spec"]["training"]["seed"] = seed
    document["spec"]["evaluation"]["gate"] = {}
    spec = FineTuneJob.model_validate(document).spec
    entry = BaseModelEntry.model_validate(
        {
            "source": {"embedded": spec.base_model},
            "training": {"dtype": "float32"},
            "serving": {"dtype": "float32", "quantization": quantization},
        }
    )
    return JobSpec(
        name="quickstart",
        namespace="benchmark",
        uid=f"{method}-{quantization}-{seed}".lower(),
        adapter_name="support-desk",
        base_model=entry,
        store=store,
        spec=spec,
    )


def run(job: JobSpec, cache: Path, *, root: Path, files: Mapping[str, str]) -> dict[str, Any]:
    """Run the trainer as a pod would, with these files below its root; return scores and times."""
    for path, text in {"etc/loraland/job.json": job.to_json(), **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    environment = os.environ | CREDENTIALS
    environment |= {
        "LORALAND_ROOT": str(root),
        "LORALAND_CACHE_DIR": str(cache),
        "LORALAND_TERMINATION_LOG": str(root / "termination-log"),
        "LORALAND_PROGRESS_PORT": PROGRESS_PORT,
        "POD_IP": "127.0.0.1",
    }
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "loraland_trainer"], env=environment, check=True, timeout=LIMIT_S
    )
    wall_s = time.monotonic() - started
    store = Store(job.store)
    result = artifacts.parse_result(store.read(artifacts.result_key(job.uid)))
    metrics = json.loads(store.read(store.key(result.uri) + "metrics.json"))
    store.close()
    return {
        "method": job.spec.method,
        "trainedOn": metrics["trainingPrecision"],
        "servedOn": metrics["servingPrecision"],
        "seed": job.spec.training.seed,
        "scores": {s.name: {"base": s.base, "tuned": s.tuned} for s in result.metrics},
        "finalLoss": result.final_loss,
        "trainSeconds": result.train_seconds,
        "tokensPerSecond": round(metrics["numTokens"] / metrics["trainSeconds"], 1),
        "wallSeconds": round(wall_s, 1),
    }


@contextmanager
def served_bucket() -> Iterator[StoreConfig]:
    """Serve S3 with an empty bucket while the block runs."""
    os.environ |= CREDENTIALS
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        config = StoreConfig(bucket="benchmark", endpoint_url=f"http://{host}:{port}")
        client = boto3.client("s3", endpoint_url=config.endpoint_url, region_name=config.region)
        client.create_bucket(Bucket=config.bucket)
        yield config
    finally:
        server.stop()


def print_table(runs: list[dict[str, Any]]) -> None:
    names = list(runs[0]["scores"])
    print(f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(
        "| method | trained on | served on | seed |",
        *(f"{n} base → tuned |" for n in names),
        end="",
    )
    print(" training s | tokens/s | whole pod s |")
    print("|---|---|---|---|" + "---|" * len(names) + "---|---|---|")
    for r in runs:
        scores = [f"{r['scores'][n]['base']:.3f} → {r['scores'][n]['tuned']:.3f}" for n in names]
        cells = [r["method"], r["trainedOn"], r["servedOn"], r["seed"], *scores]
        cells += [
            f"{r['trainSeconds']:.0f}",
            f"{r['tokensPerSecond']:.0f}",
            f"{r['wallSeconds']:.0f}",
        ]
        print("|", " | ".join(map(str, cells)), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run for each")
    parser.add_argument("--only", help="method/quantization, such as QLoRA/nf4")
    parser.add_argument("--cache", type=Path, default=CACHE)
    arguments = parser.parse_args()
    pairs = [p for p in PAIRS if arguments.only in (None, "/".join(p))]
    runs = []
    with served_bucket() as store, tempfile.TemporaryDirectory() as name:
        for seed in arguments.seeds:
            for method, quantization in pairs:
                job = build_job(method, quantization, seed, store)
                runs.append(run(job, arguments.cache, root=Path(name) / job.uid, files={}))
    print_table(runs)
    if arguments.json:
        arguments.json.write_text(json.dumps({"schemaVersion": 1, "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
