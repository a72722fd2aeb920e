"""From an adapter's files to what a slot takes, directly or by way of a packed file.

Files only; checked by ``adapter_file``, laid out by ``packed_file``. Safe to call from any thread.
"""

from pathlib import Path

import torch
from loraland_models import allocation

from loraland_engine import adapter_file, packed_file
from loraland_engine.lora import LoraAdapter
from loraland_engine.runner import Runner


class AdapterReader:
    """Reads adapters as the runner's model takes them."""

    def __init__(self, runner: Runner, *, max_rank: int) -> None:
        self._runner = runner
        self._max_rank = max_rank
        # CPUs do small bfloat16 products several times slower than float32 ones.
        is_cpu = runner.device.type == "cpu"
        self._dtype = torch.float32 if is_cpu else runner.model.dtype
        kind = str(runner.adapter_dtype or self._dtype).removeprefix("torch.")
        # A packed file of another model's packing is of no use to this one.
        self.packing = f"{packed_file.VERSION}-{kind}"

    def read(self, folder: Path) -> LoraAdapter:
        """Read and check an adapter's files; raise ``ArtifactInvalid`` naming what is wrong."""
        return self._read(folder, self._runner.device)

    def pack(self, folder: Path, path: Path) -> int:
        """Read and check an adapter's files and write them packed; return the size in bytes."""
        return packed_file.write(self._read(folder, "cpu"), path, packing=self.packing)

    def read_packed(self, path: Path) -> LoraAdapter:
        """Return a packed adapter, mapped, or copied to the model's device."""
        return packed_file.read(path, packing=self.packing, device=self._runner.device)

    def _read(self, folder: Path, device: torch.device | str) -> LoraAdapter:
        adapter = adapter_file.load_adapter(
            folder,
            self._runner.linears,
            max_rank=self._max_rank,
            dtype=self._dtype,
            device=device,
        )
        packed = self._runner.pack_adapter(adapter)
        # What was read is several times as large as what is kept of it.
        del adapter
        allocation.return_freed()
        return packed
