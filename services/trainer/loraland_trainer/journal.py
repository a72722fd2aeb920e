"""What every step was like: noted while training, kept in checkpoints, written as files at the end.

A step's line lies in Transformers' own record of the run, so that a resumed run has the steps of all
its pods. The files lie beside the adapter: one JSON object a step, the same for TensorBoard, a picture.
"""

import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import RecordWriter
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loraland_trainer import curves
from loraland_trainer.progress import Board

STEPS_FILE = "steps.jsonl"
# TensorBoard looks for the word in the middle.
EVENTS_FILE = "events.out.tfevents.training"
CURVES_FILE = "curves.png"
Entry = dict[str, Any]
# Names in Transformers' record, and ours.
_NAMES = {
    "step": "step",
    "time": "time",
    "loss": "loss",
    "held_out_loss": "heldOutLoss",
    "learning_rate": "learningRate",
    "grad_norm": "gradientNorm",
    "tokens_per_second": "tokensPerSecond",
    "peak_memory_bytes": "peakMemoryBytes",
}
_TAGS = {
    "loss": "train/loss",
    "heldOutLoss": "evaluation/loss",
    "learningRate": "train/learning_rate",
    "gradientNorm": "train/gradient_norm",
    "tokensPerSecond": "speed/tokens_per_second",
    "peakMemoryBytes": "memory/peak_bytes",
}


class Journal(TrainerCallback):  # type: ignore[misc]
    """Adds time, speed and memory to what Transformers notes of a step."""

    def __init__(self, board: Board, num_tokens: Callable[[], int]) -> None:
        self._board = board
        self._num_tokens = num_tokens
        self._last = (0, 0.0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._last = (self._num_tokens(), time.monotonic())

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        now, last = (self._num_tokens(), time.monotonic()), self._last
        self._last = now
        speed = (now[0] - last[0]) / max(now[1] - last[1], 1e-9)
        added = {
            "time": round(time.time(), 3),
            "tokens_per_second": round(speed, 1),
            "peak_memory_bytes": peak_memory_bytes(),
        }
        # The one that Transformers has just appended.
        state.log_history[-1].update(added)
        self._board.measure(
            learning_rate=logs.get("learning_rate"),
            gradient_norm=logs.get("grad_norm"),
            peak_memory_bytes=added["peak_memory_bytes"],
        )


def peak_memory_bytes() -> int:
    """Return the most memory that training has taken: the GPU's where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def lines(history: Sequence[Entry]) -> list[Entry]:
    """Return the steps under our names; what says nothing of a step is left out."""
    named = [{ours: e[name] for name, ours in _NAMES.items() if name in e} for e in history]
    return [entry for entry in named if "loss" in entry or "heldOutLoss" in entry]


def write(history: Sequence[Entry], directory: Path) -> None:
    """Write the steps as JSON lines, as TensorBoard's events, and as a picture."""
    steps = lines(history)
    text = "".join(json.dumps(entry) + "\n" for entry in steps)
    (directory / STEPS_FILE).write_text(text)
    _write_events(steps, directory / EVENTS_FILE)
    curves.draw(steps, directory / CURVES_FILE)


def _write_events(steps: Sequence[Entry], path: Path) -> None:
    writer = RecordWriter(str(path))
    # A look at the held-out loss has no time of its own.
    now_s = next((float(entry["time"]) for entry in steps if "time" in entry), 0.0)
    first = event_pb2.Event(file_version="brain.Event:2", wall_time=now_s)
    writer.write(first.SerializeToString())
    for entry in steps:
        now_s = float(entry.get("time", now_s))
        values = [
            summary_pb2.Summary.Value(tag=tag, simple_value=float(entry[name]))
            for name, tag in _TAGS.items()
            if name in entry
        ]
        event = event_pb2.Event(
            step=entry["step"], wall_time=now_s, summary=summary_pb2.Summary(value=values)
        )
        writer.write(event.SerializeToString())
    writer.close()
