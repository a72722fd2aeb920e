"""Measures generation: the bare engine, the service around it, and other systems beside them.

One piece of work::

    python benchmarks/serving.py --engine --concurrency 16 --adapters 16 --precision int8

The table of docs/performance.md, each line in a process of its own::

    python benchmarks/serving.py --suite --engine --grpc --json serving.json

Every run with adapters is measured in alternation with the base model alone on the same engine. The
client shares the machine with what it measures; its CPU time is never counted as the service's.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import environment  # noqa: F401 (before torch)
import measures
import peers
import psutil
import random_adapters
import replica
import report
import suite
import torch
from bare_engine import BareEngine
from loraland_core import catalogue, paths
from loraland_core.catalogue import BaseModelEntry
from loraland_engine.engine import Engine, EngineConfig
from loraland_models import sources, weights
from loraland_models.sources import ResolvedModel
from service import Service
from workload import Request, Workload, build_requests

PRECISIONS = {
    "float32": ("float32", "none"),
    "bf16": ("bf16", "none"),
    "fp16": ("fp16", "none"),
    "nf4": ("float32", "nf4"),
    "nf4-bf16": ("bf16", "nf4"),
    "int8": ("float32", "int8"),
}
EMBEDDED = "smollm2-135m-instruct"
IMPORT_BYTES = psutil.Process().memory_info().rss


@dataclass(frozen=True)
class Job:
    """What is measured, on which model, and what counts as well served."""

    arguments: argparse.Namespace
    model: ResolvedModel
    workload: Workload
    slo: measures.Slo

    @property
    def num_slots(self) -> int:
        return int(self.arguments.slots or max(1, self.workload.num_adapters))

    @property
    def max_running(self) -> int:
        return int(self.arguments.max_running or self.workload.concurrency)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run what was asked for once; return the document that ``--json`` writes."""
    torch.set_num_threads(arguments.threads)
    model = resolve_model(arguments)
    workload = build_workload(arguments)
    slo = measures.Slo(arguments.slo_ttft_s, arguments.slo_tpot_s)
    job = Job(arguments, model, workload, slo)
    runs, results = [], []
    with tempfile.TemporaryDirectory(prefix="loraland-bench-") as name:
        folder = Path(name)
        adapters_dir = arguments.adapters_dir or folder / "adapters"
        loaded = weights.load_model(model, weights.serving_precision(model.entry))
        linears = random_adapters.find_linears(loaded)
        folders = random_adapters.ensure_adapters(
            adapters_dir,
            linears,
            count=workload.num_adapters,
            ranks=arguments.ranks,
            base=str(model.directory),
        )
        if arguments.engine:
            runs.append(_measure_engine(job, loaded, folders))
        del loaded
        if arguments.grpc:
            runs.append(_measure_service(job, folders, folder))
        if arguments.peers:
            results = peers.run(
                arguments.peers, model.directory, adapters_dir, workload, _pythons(arguments)
            )
    return build_document(runs, results)


def _measure_engine(job: Job, loaded: Any, folders: list[Path]) -> dict[str, Any]:
    arguments, model = job.arguments, job.model
    engine = Engine(
        loaded,
        weights.load_tokenizer(model),
        EngineConfig(
            max_running=job.max_running,
            max_step_tokens=max(arguments.step_tokens, job.max_running),
            context_tokens=model.entry.limits.context_tokens,
            num_slots=job.num_slots,
            prefix_cache=not arguments.no_prefix_cache,
            max_rank=model.entry.limits.max_rank,
        ),
    )
    target = BareEngine(engine, folders)
    run = _alternate(job, target, engine.vocabulary_size)
    rss_bytes = psutil.Process().memory_info().rss
    memory = {"import_bytes": IMPORT_BYTES, "process_bytes": rss_bytes}
    return {"system": "engine", "memory": memory} | run


def _measure_service(job: Job, folders: list[Path], folder: Path) -> dict[str, Any]:
    vocabulary_size = json.loads((job.model.directory / "config.json").read_text())["vocab_size"]
    with _service(job, folders, folder) as (service, memory_bytes):
        run = _alternate(job, service, vocabulary_size)
        return {"system": "service", "memory": {"process_bytes": memory_bytes()}} | run


@contextmanager
def _service(
    job: Job, folders: list[Path], folder: Path
) -> Iterator[tuple[Service, Callable[[], int | None]]]:
    arguments = job.arguments
    if arguments.address:
        # Somewhere else: neither its processes nor its memory can be seen from here.
        names = arguments.adapter_names
        yield Service(arguments.address, arguments.token, names, lambda: 0.0), lambda: None
        return
    with replica.running(
        job.model,
        folders,
        folder=folder,
        num_slots=job.num_slots,
        max_running=job.max_running,
        threads=arguments.threads,
        prefix_cache=not arguments.no_prefix_cache,
    ) as started:
        service = Service(started.address, started.token, started.adapter_ids, started.cpu_s)
        yield service, started.engine_memory_bytes


def _alternate(job: Job, target: BareEngine | Service, vocabulary_size: int) -> dict[str, Any]:
    """Measure the work and, if it has adapters, the same without them, turn by turn."""
    arguments, workload, slo = job.arguments, job.workload, job.slo

    def requests(work: Workload, seed: int) -> list[Request]:
        return build_requests(work, vocabulary_size=vocabulary_size, seed=seed)

    base = replace(workload, num_adapters=0)
    target.warm_up(requests(workload, 0))
    short = replace(workload, output_tokens=min(4, workload.output_tokens), rate=None)
    target.run(requests(short, 0), concurrency=workload.concurrency)
    found: dict[str, list[measures.Run]] = {"own": [], "base": []}
    for repeat in range(arguments.repeats):
        if workload.num_adapters:
            run = target.run(requests(base, repeat + 1), concurrency=workload.concurrency)
            found["base"].append(run)
        run = target.run(requests(workload, repeat + 1), concurrency=workload.concurrency)
        found["own"].append(run)
    summary = _median(found["own"], slo)
    result = {"name": arguments.name or _name(workload), "precision": arguments.precision}
    result |= summary | {"workload": vars(workload), "ratio_to_base": None, "base": None}
    if found["base"]:
        result["base"] = _median(found["base"], slo)
        pairs = zip(found["own"], found["base"], strict=True)
        # The median of the pairs' ratios: neighbours in time share the machine's mood.
        result["ratio_to_base"] = statistics.median(b.wall_s / o.wall_s for o, b in pairs)
    rows = [(i, row) for i, run in enumerate(found["own"]) for row in run.rows]
    return result | {"requests": [{"repeat": i} | row.to_json() for i, row in rows]}


def _median(runs: list[measures.Run], slo: measures.Slo) -> dict[str, Any]:
    """Return the numbers of the run in the middle, and the throughput of all of them."""
    summaries = sorted(
        (measures.summarize(run, slo) for run in runs), key=lambda s: s["output_tokens_per_s"]
    )
    rates = [s["output_tokens_per_s"] for s in summaries]
    return summaries[len(summaries) // 2] | {"all_output_tokens_per_s": rates}


def _name(workload: Workload) -> str:
    adapters = f"{workload.num_adapters} adapters" if workload.num_adapters else "base"
    return f"{workload.concurrency} at once, {adapters}"


def resolve_model(arguments: argparse.Namespace) -> ResolvedModel:
    """Return the base model: a folder, a name of the given catalogue, or an embedded one."""
    named = arguments.base_model
    if Path(named).is_dir():
        name, source = "base", {"directory": str(Path(named).resolve())}
        entry = BaseModelEntry.model_validate({"source": source})
    elif arguments.catalogue:
        name, entry = named, catalogue.load(arguments.catalogue).find(named)
    else:
        name, entry = named, BaseModelEntry.model_validate({"source": {"embedded": named}})
    dtype, quantization = PRECISIONS[arguments.precision]
    serving = {"dtype": dtype, "quantization": quantization}
    document = entry.model_dump(by_alias=True, exclude_none=True) | {"serving": serving}
    entry = BaseModelEntry.model_validate(document)
    report_to = lambda text: print(text, file=sys.stderr)  # noqa: E731 (one place uses it)
    return sources.resolve(name, entry, cache_dir=paths.cache_dir(), report=report_to)


def build_workload(arguments: argparse.Namespace) -> Workload:
    return Workload(
        concurrency=arguments.concurrency,
        num_requests=arguments.requests or arguments.concurrency,
        num_adapters=arguments.adapters,
        input_tokens=arguments.input_tokens,
        output_tokens=arguments.output_tokens,
        distribution=arguments.distribution,
        rate=arguments.rate,
        burstiness=arguments.burstiness,
        skew=arguments.skew,
        seed=arguments.seed,
    )


def build_document(runs: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return everything; the first run's numbers stand at the top as well."""
    names = ("output_tokens_per_s", "ttft_s", "tpot_s", "requests")
    return {
        "schemaVersion": 1,
        "machine": {
            "processor": _processor(),
            "num_cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "command": sys.argv,
        **({name: runs[0][name] for name in names} if runs else {}),
        "runs": runs,
        "peers": results,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _pythons(arguments: argparse.Namespace) -> dict[str, str]:
    return dict(given.split("=", 1) for given in arguments.peer_python)


def main() -> None:
    arguments = suite.parse_arguments(__doc__ or "", sorted(PRECISIONS), EMBEDDED)
    if arguments.suite:
        parts = suite.run(arguments, Path(__file__))
        runs = [run for part in parts for run in part["runs"]]
        document = build_document(runs, [peer for part in parts for peer in part["peers"]])
    else:
        document = measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if not arguments.quiet:
        report.print_table(document)
    if arguments.plot:
        report.write_plot(document, arguments.plot)


if __name__ == "__main__":
    main()
