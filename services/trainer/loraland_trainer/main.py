"""Entry point of the training pod: reads the job, runs it, and says how it ended.

A pod that is started again after its result was committed has nothing to do, and finds out before it
imports torch.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from loraland_core import artifacts, jobspec, logs, paths
from loraland_core.errors import InvalidInput, LoraLandError, Unavailable
from loraland_core.jobspec import ExitCode, JobSpec, TerminationMessage
from loraland_core.store import Store
from loraland_models import noise

from loraland_trainer import orders, progress, redaction
from loraland_trainer.config import Config
from loraland_trainer.progress import Board
from loraland_trainer.termination import Terminated, Terminator

IMPORT = "import"
log = logging.getLogger(__name__)


def main(arguments: Sequence[str] = ()) -> int:
    """Run the job of this pod, or its import; return the exit code."""
    try:
        config = Config.from_environment(os.environ)
        logs.configure(level=config.log_level, as_json=config.log_as_json)
        redaction.install(os.environ)
    except InvalidInput as error:
        # A job's author may have set it, and trying again does not help.
        return report_failure(error, paths.termination_log())
    noise.hush()
    if not arguments and _is_to_start_others():
        return _explained(_launch, config.termination_log)
    terminator = Terminator()
    terminator.install()
    if list(arguments) == [IMPORT]:
        return attempt_import(config)
    return attempt(config, terminator=terminator)


def _is_to_start_others() -> bool:
    """Whether the job has several processes, and this is none of them."""
    names = ("LORALAND_NUM_NODES", "LORALAND_NUM_PROC_PER_NODE")
    has_several = any(os.environ.get(name, "1") not in ("", "1") for name in names)
    return has_several and int(os.environ.get("WORLD_SIZE", "1")) == 1


def _launch() -> int:
    """Start the processes of a job that has several, and return their exit code."""
    # Imported here: it imports torch.
    from loraland_trainer import group  # noqa: PLC0415

    return group.launch(group.read(os.environ))


def attempt(config: Config, *, terminator: Terminator) -> int:
    """Run the job; a failure becomes an exit code and a termination message."""
    return _explained(lambda: run(config, terminator=terminator), config.termination_log)


def attempt_import(config: Config) -> int:
    """Run the import; it ends as a job does."""
    return _explained(lambda: run_import(config), config.termination_log)


def _explained(work: Callable[[], int], termination_log: Path) -> int:
    try:
        return work()
    # The pod's border: nothing leaves it as a traceback alone.
    except (Exception, Terminated) as error:
        return report_failure(error, termination_log)


def run_import(config: Config) -> int:
    """Bring an adapter's files into the platform's bucket."""
    # Imported here: it imports torch.
    from loraland_trainer import importing  # noqa: PLC0415

    importing.run(importing.read_spec(config.import_file), config)
    return ExitCode.DONE


def run(config: Config, *, terminator: Terminator) -> int:
    """Train the job's adapter unless its result is there already."""
    job = jobspec.parse_job(orders.read(config.job_file))
    board = progress.Board()
    # One of a node's processes speaks for all of them.
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    with (
        contextlib.closing(Store(job.store)) as store,
        progress.served(board, host=config.host, port=config.port if is_first else 0),
    ):
        train(job, config=config, store=store, board=board, terminator=terminator)
    return ExitCode.DONE


def train(
    job: JobSpec, *, config: Config, store: Store, board: Board, terminator: Terminator
) -> None:
    """Train, score and commit, into whichever store; without a pod as well."""
    if store.exists(artifacts.result_key(job.uid)):
        log.info("%s/%s has its result already; nothing to do", job.namespace, job.name)
        return
    log.info("job %s/%s on base model %s", job.namespace, job.name, job.spec.base_model)
    # Imported here: takes seconds, and a pod without work should not wait for it.
    from loraland_trainer.job import train_adapter  # noqa: PLC0415

    train_adapter(job, config=config, store=store, board=board, terminator=terminator)


def report_failure(error: BaseException, termination_log: Path) -> int:
    """Say why the job ends, in the log and in the termination message; return the exit code."""
    # Imported here: it names torch's out-of-memory error.
    from loraland_trainer import failure  # noqa: PLC0415

    found = failure.explain(error)
    expected = isinstance(error, (LoraLandError, Unavailable, Terminated))
    log.error(
        "%s: %s", found.message.reason, found.message.message, exc_info=None if expected else error
    )
    write_termination_message(found.message, termination_log)
    return found.exit_code


def write_termination_message(message: TerminationMessage, path: Path) -> None:
    redactor = redaction.Redactor(os.environ)
    message = message.model_copy(update={"message": redactor.redact(message.message)})
    try:
        path.write_text(message.to_json())
    except OSError as error:
        log.warning("cannot write the termination message to %s: %s", path, error.strerror)
