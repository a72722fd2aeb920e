"""Progress that survives the pod: checkpoints in the artifact store, manifest last.

A checkpoint holds the adapter, the state of optimizer, schedule and random generators, and
Transformers' record of the run. A retried pod takes the newest whole one, so that at most the steps
since then are done again. A checkpoint is written to the pod's disk between two steps, and uploaded
while the next ones run. Nothing in the store is pickled; the ``.pt`` files that Transformers reads
on resuming are written locally, a moment before, from safetensors and JSON.
"""

import json
import logging
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loraland_core import artifacts
from loraland_core.artifacts import File
from loraland_core.errors import NotFound, Unavailable
from loraland_core.store import Store
from loraland_models import revisions

from loraland_trainer import statefile
from loraland_trainer.background import Background

log = logging.getLogger(__name__)
TRAINER_STATE_FILE = "trainer_state.json"
MAX_FILE_BYTES = 64 * 1024**3


class Checkpoints:
    """The checkpoints of one job."""

    def __init__(self, store: Store, job_uid: str, *, keep_last: int, work_dir: Path) -> None:
        self._store = store
        self._job_uid = job_uid
        self._keep_last = keep_last
        self._work_dir = work_dir
        self._background = Background(self._keep, drop=self._drop)

    @property
    def _prefix(self) -> str:
        return f"{artifacts.job_prefix(self._job_uid)}checkpoints/"

    def save(
        self,
        *,
        model: Any,
        optimizer: Any,
        scheduler: Any,
        state: Any,
        random_states: Sequence[dict[str, Any]],
    ) -> None:
        """Write a checkpoint of the step that ``state`` is at, to be uploaded in the background.

        ``random_states`` are those of every process, in their order.
        """
        step = int(state.global_step)
        folder = self._work_dir / f"step-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        statefile.write_state(
            {
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "random": list(random_states),
            },
            folder,
        )
        state.save_to_json(str(folder / TRAINER_STATE_FILE))
        self._background.put(step, folder)

    def wait(self) -> None:
        """Wait until what was saved is in the artifact store, or known not to get there."""
        self._background.wait()

    def _keep(self, step: int, folder: Path) -> None:
        """Upload a checkpoint, then drop those too many."""
        try:
            self._upload(folder, step)
            log.info("checkpoint of step %d is in the artifact store", step)
            for old in self._complete_steps()[: -self._keep_last]:
                self._store.delete_prefix(artifacts.checkpoint_prefix(self._job_uid, old))
        # Steps that may have to be done again are better than none done.
        except Exception as error:
            log.warning("no checkpoint of step %d: %s", step, error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _upload(self, folder: Path, step: int) -> None:
        prefix = artifacts.checkpoint_prefix(self._job_uid, step)
        files = [
            File(path=p.name, size_bytes=p.stat().st_size, sha256=revisions.hash_file(p))
            for p in sorted(folder.iterdir())
        ]
        for file in files:
            self._store.upload(folder / file.path, prefix + file.path)
        manifest = {
            "schemaVersion": artifacts.SCHEMA_VERSION,
            "step": step,
            "files": [file.model_dump(by_alias=True) for file in files],
        }
        self._store.write(prefix + artifacts.MANIFEST_FILE, json.dumps(manifest, indent=2).encode())

    def fetch_newest(self) -> Path | None:
        """Download the newest whole checkpoint; return a folder that Transformers resumes from."""
        for step in reversed(self._complete_steps()):
            try:
                return self._fetch(step)
            except (NotFound, ValueError) as error:
                log.warning("checkpoint of step %d is passed over: %s", step, error)
        return None

    def _fetch(self, step: int) -> Path:
        prefix = artifacts.checkpoint_prefix(self._job_uid, step)
        manifest = json.loads(self._store.read(prefix + artifacts.MANIFEST_FILE))
        if manifest.get("schemaVersion") != artifacts.SCHEMA_VERSION:
            raise ValueError(f"its schemaVersion is {manifest.get('schemaVersion')}")
        folder = self._work_dir / f"resume-{step}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in [File.model_validate(document) for document in manifest["files"]]:
            path = folder / file.path
            sha256 = self._store.download(prefix + file.path, path, max_bytes=MAX_FILE_BYTES)
            if sha256 != file.sha256:
                raise ValueError(f"{file.path} is damaged")
        write_transformers_files(statefile.read_state(folder), folder)
        log.info("resuming from the checkpoint of step %d", step)
        return folder

    def _drop(self, step: int, folder: Path) -> None:
        log.info("checkpoint of step %d is not uploaded: a newer one is there already", step)
        shutil.rmtree(folder, ignore_errors=True)

    def delete_all(self) -> None:
        """Drop every checkpoint, once the result is there; what stays is swept by the operator."""
        self.wait()
        try:
            self._store.delete_prefix(self._prefix)
        except Unavailable as error:
            log.warning("the checkpoints were left in the artifact store: %s", error)

    def _complete_steps(self) -> list[int]:
        """Return the steps whose manifest is there, oldest first."""
        ending = f"/{artifacts.MANIFEST_FILE}"
        keys = [found.key for found in self._store.find_objects(self._prefix)]
        folders = [key[len(self._prefix) : -len(ending)] for key in keys if key.endswith(ending)]
        return sorted(int(folder.removeprefix("step-")) for folder in folders)


def random_state() -> dict[str, Any]:
    """Return the state of every generator that training draws from, by Transformers' names."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.random.get_rng_state()
    return state


def write_transformers_files(state: dict[str, Any], folder: Path) -> None:
    torch.save(state["optimizer"], folder / "optimizer.pt")
    torch.save(state["scheduler"], folder / "scheduler.pt")
    # A checkpoint of before there were several holds the state of one process by itself.
    states = state["random"] if isinstance(state["random"], list) else [state["random"]]
    for rank, random_of_rank in enumerate(states):
        name = "rng_state.pth" if len(states) == 1 else f"rng_state_{rank}.pth"
        torch.save(random_of_rank, folder / name)
