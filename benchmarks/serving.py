"""Measures generation: the bare engine, the service around it, and other systems beside them.

One piece of work::

    python benchmarks/serving.py --engine --concurrency 16 --adapters 16 --precision int8

The table of docs/performance.md, each line in a process of its own::

    python benchmarks/serving.py --suite --engine --grpc --json serving.json

Whatever is compared takes turns: the engine, the service, and each of them with the base model
alone; peers run half-way. The client shares the machine with what it measures; its CPU time is never
counted as the service's.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import environment  # noqa: F401 (before torch)
import measures
import options
import peers
import random_adapters
import report
import served_model
import subjects
import suite
import targets
import torch
import turns
from loraland_models import weights
from loraland_models.sources import ResolvedModel
from subjects import Job, Subjects
from workload import Workload


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run what was asked for once; return the document that ``--json`` writes."""
    torch.set_num_threads(arguments.threads)
    model = served_model.resolve(arguments)
    workload = build_workload(arguments)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="loraland-bench-") as name:
        folder = Path(name)
        adapters_dir = arguments.adapters_dir or folder / "adapters"
        folders = _ensure_adapters(arguments, model, adapters_dir, workload.num_adapters)
        job = Job(arguments, model, workload, folders, folder)

        def run_peers() -> None:
            if arguments.peers:
                results.extend(_run_peers(job, adapters_dir))

        if not (arguments.engine or arguments.grpc):
            run_peers()
            return build_document([], results)
        with subjects.prepared(job, lambda: _load(model)) as prepared:
            found = turns.take(
                prepared.sides,
                repeats=arguments.repeats,
                vocabulary_size=job.vocabulary_size(),
                between=run_peers,
            )
            runs = _describe(job, prepared, found)
    return build_document(runs, results)


def _load(model: ResolvedModel) -> Any:
    return weights.load_model(model, weights.serving_precision(model.entry))


def _ensure_adapters(
    arguments: argparse.Namespace, model: ResolvedModel, folder: Path, count: int
) -> list[Path]:
    if not count:
        return []
    return random_adapters.ensure_adapters(
        folder,
        lambda: random_adapters.find_linears(_load(model)),
        count=count,
        ranks=arguments.ranks,
        base=str(model.directory),
    )


def _run_peers(job: Job, adapters_dir: Path) -> list[dict[str, Any]]:
    arguments = job.arguments
    works = [job.workload]
    if arguments.peers_base and job.base is not None:
        works.append(job.base)
    pythons = dict(given.split("=", 1) for given in arguments.peer_python)
    return [
        result | {"name": arguments.name or describe(work), "num_adapters": work.num_adapters}
        for work in works
        for result in peers.run(arguments.peers, job.model.directory, adapters_dir, work, pythons)
    ]


def _describe(
    job: Job, prepared: Subjects, found: dict[str, list[measures.Run]]
) -> list[dict[str, Any]]:
    arguments = job.arguments
    slo = measures.Slo(arguments.slo_ttft_s, arguments.slo_tpot_s)
    described = turns.summarize(prepared.sides, found, slo)
    runs = []
    # The work itself first, then what it took turns with.
    for name in sorted(described, key=lambda name: (", " in name, name)):
        system, _, other = name.partition(", ")
        title = arguments.name or describe(job.workload)
        run = {"system": system, "name": title, "against_this": other or None}
        run |= {"precision": arguments.precision, "memory": None} | described[name]
        if name in prepared.process_bytes and name in prepared.parts:
            sides = [side for key, side in prepared.sides.items() if key.startswith(system)]
            num_prompts = sum(s.workload.num_requests for s in sides) * (arguments.repeats + 1)
            run["memory"] = prepared.parts[name].describe(
                prepared.process_bytes[name](),
                workload=job.workload,
                max_running=job.max_running,
                num_prompts=0 if arguments.no_prefix_cache else num_prompts,
            )
        runs.append(run)
    if "engine" in found and "service" in found:
        service = next(run for run in runs if run["system"] == "service")
        service["cpu_over_engine"] = turns.ratio(found["service"], found["engine"], "cpu_s")
    return runs


def describe(workload: Workload) -> str:
    adapters = f"{workload.num_adapters} adapters" if workload.num_adapters else "base"
    return f"{workload.concurrency} at once, {adapters}"


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
        shared_tokens=arguments.shared_tokens,
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
        "targets": targets.compare(runs, results),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    arguments = options.parse(__doc__ or "", sorted(served_model.PRECISIONS), served_model.EMBEDDED)
    failed: list[str] = []
    if arguments.suite:
        parts, failed = suite.run(arguments, Path(__file__))
        runs = [run for part in parts for run in part["runs"]]
        document = build_document(runs, [peer for part in parts for peer in part["peers"]])
    else:
        document = measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(report.build_markdown(document))
    if not arguments.quiet:
        report.print_table(document)
    if arguments.plot:
        report.write_plot(document, arguments.plot)
    if failed:
        sys.exit("not measured:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
