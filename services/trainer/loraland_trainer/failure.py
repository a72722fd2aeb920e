"""Why a pod ends, for people and for the operator: exit code, reason, one sentence. Pure.

The table of exit codes is in ``loraland_core.jobspec``. What is not listed here ends with 1 and is
retried within the job's backoff limit.
"""

from dataclasses import dataclass

import torch
from loraland_core.errors import InvalidInput, Unavailable
from loraland_core.jobspec import ExitCode, TerminationMessage

from loraland_trainer.dataset import SourceUnavailable
from loraland_trainer.termination import Terminated

UNEXPECTED = 1
_NO_SPACE = ("No space left on device", "Disk quota exceeded")
# The CPU allocator has no exception class of its own.
_NO_MEMORY = ("can't allocate memory", "not enough memory")


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
    if _is_out_of_memory(error, texts):
        return _failure(
            ExitCode.OUT_OF_MEMORY,
            "OutOfMemory",
            "the memory does not suffice: lower training.batchSize (raising gradientAccumulation"
            " keeps the result) or training.maxSequenceLength, use QLoRA, or give the pod more"
            f" ({error})",
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


def _is_out_of_memory(error: BaseException, texts: list[str]) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(p in t for t in texts for p in _NO_MEMORY)


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
