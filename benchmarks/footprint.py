"""What an engine process may take in memory, and what it takes. Reads the system's counters.

The bound of a process: what its imports take, the weights as they are loaded, adapters at their true
ranks, the keys and values that the work reaches, and ``ALLOWANCE_BYTES`` for everything else.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraland_core import artifacts
from workload import Workload

ALLOWANCE_BYTES = 250 * 1024 * 1024
BLOCK_TOKENS = 16
# Adapter files hold two bytes a number.
_FILE_ITEM_BYTES = 2


@dataclass(frozen=True)
class Parts:
    """What a process has to hold; ``token_bytes`` is of one token's keys and values."""

    import_bytes: int
    weight_bytes: int
    adapter_bytes: int
    token_bytes: int

    def describe(
        self, process_bytes: int, *, workload: Workload, max_running: int, num_prompts: int
    ) -> dict[str, Any]:
        """Return the process's memory beside its bound.

        The prefix cache keeps the full blocks of each of the ``num_prompts`` prompts.
        """
        per_request = workload.input_tokens + workload.output_tokens
        kept = workload.input_tokens // BLOCK_TOKENS * BLOCK_TOKENS
        num_tokens = max_running * per_request + num_prompts * kept
        kv_bytes = num_tokens * self.token_bytes
        parts = {
            "import_bytes": self.import_bytes,
            "weight_bytes": self.weight_bytes,
            "adapter_bytes": self.adapter_bytes,
            "kv_bytes": kv_bytes,
        }
        needed_bytes = sum(parts.values())
        return parts | {
            "process_bytes": process_bytes,
            "bound_bytes": needed_bytes + ALLOWANCE_BYTES,
            "beyond_parts_bytes": process_bytes - needed_bytes,
        }


def adapter_bytes(folders: list[Path], *, item_bytes: int) -> int:
    """Return what adapters take at their true ranks, ``item_bytes`` a number."""
    size = sum((folder / artifacts.WEIGHTS_FILE).stat().st_size for folder in folders)
    return size // _FILE_ITEM_BYTES * item_bytes


def weight_bytes(model: Any) -> int:
    """Return what a loaded model's parameters and buffers take."""
    tensors = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    return sum(tensors.values())


def import_bytes(module: str) -> int:
    """Return the resident memory of a fresh process that has only imported the module."""
    code = f"import {module}, psutil; print(psutil.Process().memory_info().rss)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout.split()[-1])
