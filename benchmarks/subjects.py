"""What a run measures: the bare engine, the service, and what takes turns with each of them."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import footprint
import psutil
import replica
from bare_engine import BareEngine
from footprint import Parts
from loraland_engine.engine import Engine, EngineConfig
from loraland_models import weights
from loraland_models.sources import ResolvedModel
from service import Service
from turns import Side
from workload import Workload

IMPORT_BYTES = psutil.Process().memory_info().rss
ENGINE_MODULE = "loraland_inference.engine_process"
# What a number of an adapter takes beside a base in this precision.
_ITEM_BYTES = {"bf16": 2}


@dataclass(frozen=True)
class Job:
    """What is measured, on which model, with which adapters; ``folder`` is for its files."""

    arguments: argparse.Namespace
    model: ResolvedModel
    workload: Workload
    folders: list[Path]
    folder: Path

    @property
    def num_slots(self) -> int:
        return int(self.arguments.slots or max(1, self.workload.num_adapters))

    @property
    def max_running(self) -> int:
        return int(self.arguments.max_running or self.workload.concurrency)

    @property
    def is_against_resident(self) -> bool:
        return self.arguments.against == "resident"

    @property
    def base(self) -> Workload | None:
        """The same work without adapters, where that is what it is measured against."""
        if self.arguments.against != "base" or not self.workload.num_adapters:
            return None
        return replace(self.workload, num_adapters=0)

    def vocabulary_size(self) -> int:
        config = json.loads((self.model.directory / "config.json").read_text())
        return int(config["vocab_size"])


@dataclass
class Subjects:
    """The sides by name, and how to read the memory of those that have a process to themselves."""

    sides: dict[str, Side] = field(default_factory=dict)
    parts: dict[str, Parts] = field(default_factory=dict)
    process_bytes: dict[str, Callable[[], int]] = field(default_factory=dict)


@contextmanager
def prepared(job: Job, load: Callable[[], Any]) -> Iterator[Subjects]:
    """Start everything that is to be measured; stop it at the end of the block."""
    subjects = Subjects()
    with ExitStack() as stack:
        loaded = load()
        parts = _parts(job, loaded)
        if job.arguments.engine:
            engine = _build_engine(job, loaded, prefix_cache=not job.arguments.no_prefix_cache)
            _add_engine(job, engine, subjects, load)
            subjects.parts["engine"] = replace(
                parts, import_bytes=IMPORT_BYTES, token_bytes=engine.kv_token_bytes
            )
            subjects.process_bytes["engine"] = lambda: int(psutil.Process().memory_info().rss)
        del loaded
        if job.arguments.grpc:
            _add_service(job, subjects, stack, parts)
        yield subjects


def _parts(job: Job, loaded: Any) -> Parts:
    serving = job.model.entry.serving
    item_bytes = 1 if serving.quantization == "int8" else _ITEM_BYTES.get(serving.dtype, 4)
    adapter_bytes = footprint.adapter_bytes(job.folders, item_bytes=item_bytes)
    return Parts(0, footprint.weight_bytes(loaded), adapter_bytes, 0)


def _build_engine(job: Job, loaded: Any, *, prefix_cache: bool) -> Engine:
    num_slots = job.num_slots
    if job.is_against_resident:
        num_slots = max(num_slots, job.workload.num_adapters)
    config = EngineConfig(
        max_running=job.max_running,
        max_step_tokens=max(job.arguments.step_tokens, job.max_running),
        context_tokens=job.model.entry.limits.context_tokens,
        num_slots=num_slots,
        prefix_cache=prefix_cache,
        max_rank=job.model.entry.limits.max_rank,
        keeps_model=False,
    )
    return Engine(loaded, weights.load_tokenizer(job.model), config)


def _add_engine(job: Job, engine: Engine, subjects: Subjects, load: Callable[[], Any]) -> None:
    whole = BareEngine(engine, job.folders, root=job.folder)
    target, other, against = whole, whole, job.base
    if job.is_against_resident:
        target, against = whole.with_slots(job.num_slots), job.workload
    elif job.arguments.against == "uncached":
        # Another copy of the weights: an engine takes its model as its own.
        other = BareEngine(
            _build_engine(job, load(), prefix_cache=False), job.folders, root=job.folder
        )
        against = job.workload
    _add(subjects, "engine", job, (target, other), against)


def _add(
    subjects: Subjects, name: str, job: Job, targets: tuple[Any, Any], against: Workload | None
) -> None:
    """Add the work and, if it is measured against something, that on the second target."""
    target, other = targets
    other_name = f"{name}, {job.arguments.against}"
    if against is not None:
        subjects.sides[other_name] = Side(other, against)
    subjects.sides[name] = Side(target, job.workload, other_name if against is not None else None)


def _add_service(job: Job, subjects: Subjects, stack: ExitStack, parts: Parts) -> None:
    arguments = job.arguments
    if arguments.address:
        # Somewhere else: neither its processes nor its memory can be seen from here.
        there = Service(arguments.address, arguments.token, arguments.adapter_names)
        _add(subjects, "service", job, (there, there), job.base)
        return
    started = _start_replica(job, stack, job.num_slots)
    service = Service(started.address, started.token, started.adapter_ids, started.cpu_s)
    other, against = service, job.base
    if job.is_against_resident:
        second = _start_replica(job, stack, job.workload.num_adapters)
        other = Service(second.address, second.token, second.adapter_ids, second.cpu_s)
        against = job.workload
    _add(subjects, "service", job, (service, other), against)
    token_bytes = subjects.parts["engine"].token_bytes if "engine" in subjects.parts else 0
    if token_bytes:
        subjects.parts["service"] = replace(
            parts, import_bytes=footprint.import_bytes(ENGINE_MODULE), token_bytes=token_bytes
        )
    subjects.process_bytes["service"] = started.engine_memory_bytes


def _start_replica(job: Job, stack: ExitStack, num_slots: int) -> replica.Replica:
    folder = job.folder / f"replica-{num_slots}"
    folder.mkdir()
    return stack.enter_context(
        replica.running(
            job.model,
            job.folders,
            folder=folder,
            num_slots=num_slots,
            max_running=job.max_running,
            threads=job.arguments.threads,
            prefix_cache=not job.arguments.no_prefix_cache,
        )
    )
