"""Why a pod ends, for people and for the operator: exit code, reason, one sentence. Pure.

The table of exit codes is in ``loraland_core.jobspec``. What is not listed here ends with 1 and is
retried within the job's backoff limit.
"""

from dataclasses import dataclass

from loraland_core.errors import InvalidInput, Unavailable
from loraland_core.jobspec import ExitCode, TerminationMessage

from loraland_trainer import memory
from loraland_trainer.dataset import SourceUnavailable
from loraland_trainer.termination import Terminated

UNEXPECTED = 1
_NO_SPACE = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True)
class Failure:
    exit_code: int
    message: TerminationMessage


def explain(error: BaseException) -> Failure:
    """Return how the pod ends because of ``error``."""
    match error:
        case Terminated():
            text = "the pod was asked to stop (SIGTERM)"
            return _failure(ExitCode.TERMINATED, "Terminated", text)
        case InvalidInput():
            return _failure(ExitCode.INVALID_JOB, error.reason, str(error))
        case SourceUnavailable():
            return _failure(UNEXPECTED, "SourceUnavailable", str(error))
        case Unavailable():
            return _failure(ExitCode.STORE_UNREACHABLE, "ArtifactStoreUnreachable", str(error))
        case _:
            return _explain_machine(error)


def _explain_machine(error: BaseException) -> Failure:
    """Explain what is not a wrong job: memory, disk, or a mistake of ours."""
    texts = [str(e) for e in _chain(error)]
    if any(memory.is_exhausted(e) for e in _chain(error)):
        return _failure(
            ExitCode.OUT_OF_MEMORY,
            "OutOfMemory",
            "the memory does not suffice, with rows one at a time: lower"
            " training.maxSequenceLength or lora.rank, use QLoRA, leave"
            f" training.gradientCheckpointing at Auto, or give the pod more ({error})",
        )
    if any(phrase in text for text in texts for phrase in _NO_SPACE):
        return _failure(
            UNEXPECTED,
            "DiskFull",
            "no space left where the pod writes (the cache directory or the temporary directory):"
            " free some, or give the pod more ephemeral storage",
        )
    return _failure(UNEXPECTED, "TrainerError", f"{type(error).__name__}: {error}")


def _failure(exit_code: int, reason: str, message: str) -> Failure:
    return Failure(exit_code, TerminationMessage(reason=reason, message=message))


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
