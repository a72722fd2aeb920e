"""``loraland train``: a FineTuneJob in this process, by the code that runs in a pod.

What a cluster would provide comes from the command line: base models, volumes, and a folder (or an
S3 prefix) for what the job leaves. Credentials come from the environment, by their usual names;
Secrets that the job names are not looked for.
"""

import dataclasses
import os
import signal
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import yaml
from loraland_core import artifacts, catalogue, logs, paths
from loraland_core.errors import InvalidInput
from loraland_core.folder_store import FolderStore
from loraland_core.jobspec import DATASET_MOUNT, ExitCode, JobSpec
from loraland_core.resources import FineTuneJob
from loraland_core.store import Store, StoreConfig, parse_uri
from loraland_local import platform
from loraland_models import noise

from loraland_cli import jobfile, training_view
from loraland_cli.console import err, fail

if TYPE_CHECKING:
    from loraland_trainer.termination import Terminator

CATALOGUE_VARIABLE = "LORALAND_CATALOGUE"


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    output: str
    catalogue: Path | None
    volumes: Sequence[str]
    json_file: Path | None
    again: bool


def run(path: Path, options: Options) -> None:
    """Train; end with a pod's exit code where that is not 0."""
    noise.hush()
    exit_code: int = ExitCode.DONE
    try:
        job = build_job(jobfile.read(path), options)
        with closing(open_store(options.output, job.store)) as store:
            exit_code = _train(job, store, options)
    except InvalidInput as error:
        fail(f"{error.reason}: {error}", exit_code=ExitCode.INVALID_JOB)
    if exit_code != ExitCode.DONE:
        raise SystemExit(int(exit_code))


def build_job(resource: FineTuneJob, options: Options) -> JobSpec:
    """Return what an operator would mount for this job."""
    spec = resource.spec
    # The variables that a pod would have, before a library reads them.
    for variable in spec.pod.env or []:
        if variable.value is not None:
            os.environ.setdefault(variable.name, variable.value)
    entry = _catalogue(options.catalogue).find(spec.base_model)
    training = spec.training
    num_processes = spec.num_nodes * spec.num_proc_per_node
    if num_processes > 1:
        err.print(f"[dim]one process instead of {num_processes}: the rows of a step stay[/dim]")
        accumulation = training.gradient_accumulation * num_processes
        training = training.model_copy(update={"gradient_accumulation": accumulation})
    return JobSpec(
        name=resource.metadata.name,
        namespace=resource.metadata.namespace,
        uid=jobfile.job_uid(resource),
        adapter_name=spec.output.adapter.name or resource.metadata.name,
        base_model=entry,
        store=_store_config(options.output),
        spec=spec.model_copy(update={"training": training, "num_nodes": 1, "num_proc_per_node": 1}),
    )


def _catalogue(path: Path | None) -> catalogue.Catalogue:
    named = path or os.environ.get(CATALOGUE_VARIABLE)
    if named:
        return catalogue.load(Path(named))
    return catalogue.parse(yaml.safe_dump(platform.build_catalogue()), origin="laptop's catalogue")


def _store_config(output: str) -> StoreConfig:
    """Return where artifacts go; endpoint and region also serve a data set in S3."""
    is_s3 = output.startswith("s3://")
    bucket, prefix = parse_uri(output.rstrip("/") + "/") if is_s3 else ("folder", "")
    return StoreConfig(
        bucket=bucket,
        prefix=prefix.strip("/"),
        endpoint_url=os.environ.get("LORALAND_STORE_ENDPOINT_URL")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL"),
        region=os.environ.get("LORALAND_STORE_REGION")
        or os.environ.get("AWS_REGION")
        or "us-east-1",
    )


def open_store(output: str, config: StoreConfig) -> Store:
    return Store(config) if output.startswith("s3://") else FolderStore(Path(output))


def _mount(job: JobSpec, volumes: Sequence[str]) -> Path:
    """Return the folder that stands for the job's volume."""
    folders: dict[str, Path] = {}
    for given in volumes:
        claim, equals, folder = given.partition("=")
        if not equals or not Path(folder).is_dir():
            raise InvalidInput(
                f"is {given!r}; expected CLAIM=FOLDER with a folder that is there", field="--volume"
            )
        folders[claim] = Path(folder)
    pvc = job.spec.dataset.pvc
    if pvc is None:
        return Path(DATASET_MOUNT)
    if pvc.claim not in folders:
        raise InvalidInput(
            f"the rows are on claim {pvc.claim!r}: give --volume {pvc.claim}=FOLDER",
            field="spec.dataset.pvc.claim",
        )
    return folders[pvc.claim]


def _train(job: JobSpec, store: Store, options: Options) -> int:
    # Imported here: nothing else of the command needs the trainer.
    from loraland_trainer import main as trainer  # noqa: PLC0415
    from loraland_trainer import redaction  # noqa: PLC0415
    from loraland_trainer.config import Config  # noqa: PLC0415
    from loraland_trainer.progress import Board  # noqa: PLC0415
    from loraland_trainer.termination import Terminated, Terminator  # noqa: PLC0415

    mount = _mount(job, options.volumes)
    config = dataclasses.replace(Config.from_environment(os.environ), dataset_mount=mount)
    if options.again:
        store.delete_prefix(artifacts.job_prefix(job.uid))
    terminator = Terminator()
    terminator.install()
    _stop_at_interrupt(terminator)
    with training_view.shown(job) as listener:
        logs.configure(level=config.log_level, as_json=config.log_as_json)
        redaction.install(os.environ)
        try:
            board = Board(listener)
            trainer.train(job, config=config, store=store, board=board, terminator=terminator)
        # The command's border, as a pod's: an exit code, and a sentence in the log.
        except (Exception, Terminated) as error:
            log_file = paths.termination_log()
            return trainer.report_failure(
                error, log_file if log_file.exists() else Path(os.devnull)
            )
    result = artifacts.parse_result(store.read(artifacts.result_key(job.uid)))
    training_view.show_result(job, result, json_file=options.json_file)
    return ExitCode.DONE


def _stop_at_interrupt(terminator: "Terminator") -> None:
    """Let Ctrl-C end the training after its step, with a checkpoint; a second one ends it at once."""

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if terminator.requested:
            raise KeyboardInterrupt
        err.print("[dim]stopping after this step, with a checkpoint; again: at once[/dim]")
        terminator.request()

    signal.signal(signal.SIGINT, on_interrupt)
