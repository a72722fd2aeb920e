"""Every way to fail has its exit code, a reason and one sentence."""

import errno

import pytest
import torch
from loraland_core.errors import InvalidInput, Unavailable
from loraland_trainer import failure
from loraland_trainer.dataset import SourceUnavailable
from loraland_trainer.termination import Terminated


@pytest.mark.parametrize(
    ("error", "exit_code", "reason", "part"),
    [
        pytest.param(
            InvalidInput("row 3 is not JSON", field="rows", reason="InvalidRow"),
            42,
            "InvalidRow",
            "rows: row 3",
            id="bad-data",
        ),
        pytest.param(
            MemoryError(), 43, "OutOfMemory", "lower training.maxSequenceLength", id="memory"
        ),
        pytest.param(
            torch.OutOfMemoryError("CUDA"), 43, "OutOfMemory", "use QLoRA", id="gpu-memory"
        ),
        pytest.param(
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            43,
            "OutOfMemory",
            "you tried",
            id="cpu-allocator",
        ),
        pytest.param(
            Unavailable("store at x does not answer"),
            44,
            "ArtifactStoreUnreachable",
            "store at x",
            id="store",
        ),
        pytest.param(SourceUnavailable("the Hub"), 1, "SourceUnavailable", "the Hub", id="hub"),
        pytest.param(Terminated(), 143, "Terminated", "asked to stop", id="terminated"),
        pytest.param(
            OSError(errno.ENOSPC, "No space left on device"), 1, "DiskFull", "free some", id="disk"
        ),
        pytest.param(KeyError("x"), 1, "TrainerError", "KeyError: 'x'", id="mistake"),
    ],
)
def test_failure_is_explained(error: BaseException, exit_code: int, reason: str, part: str) -> None:
    """The operator reads the code, a person the sentence."""
    found = failure.explain(error)

    assert exit_code == found.exit_code
    assert reason == found.message.reason
    assert part in found.message.message


def test_a_full_disk_is_seen_through_another_error() -> None:
    """Libraries wrap the system's error in one of their own."""
    error = RuntimeError("could not write")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")

    assert failure.explain(error).message.reason == "DiskFull"
