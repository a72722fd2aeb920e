"""The trainer's own program, killed by SIGKILL at a place that is named, not at a time that is guessed.

``python killed_trainer.py <place> <step>``: ``upload`` is in the middle of the upload of that step's
checkpoint, ``step`` is after that step, once an earlier checkpoint is whole; ``never`` runs on.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from loraland_trainer import callbacks, main
from loraland_trainer.checkpoints import Checkpoints


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_upload(step: int) -> None:
    upload = Checkpoints._upload

    def torn(self: Checkpoints, folder: Path, at_step: int) -> None:
        if at_step == step:
            # The first file gets there, the manifest does not.
            first = min(folder.iterdir())
            self._store.upload(first, f"jobs/{self._job_uid}/checkpoints/step-{step:08d}/x")
            die()
        upload(self, folder, at_step)

    Checkpoints._upload = torn  # type: ignore[method-assign]


def watch_steps(killed_at: int | None) -> None:
    """Let each checkpoint get there before the next step, or steps this small would overtake it."""
    keep = callbacks.Keeper.on_log

    def on_log(self: Any, args: Any, state: Any, control: Any, **given: Any) -> None:
        keep(self, args, state, control, **given)
        self._checkpoints.wait()
        if state.global_step == killed_at:
            die()

    callbacks.Keeper.on_log = on_log  # type: ignore[method-assign]


if __name__ == "__main__":
    place, at = sys.argv[1], int(sys.argv[2])
    watch_steps(at if place == "step" else None)
    if place == "upload":
        die_in_upload(at)
    sys.exit(main.main())
