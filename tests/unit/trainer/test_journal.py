"""Every step's numbers, in three forms that say the same."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from loraland_trainer import journal
from loraland_trainer.journal import Journal
from loraland_trainer.progress import Board
from PIL import Image
from tensorboardX.proto import event_pb2
from transformers import TrainerControl, TrainerState, TrainingArguments

HISTORY: list[dict[str, Any]] = [
    {
        "step": step,
        "epoch": step / 4,
        "loss": 4.0 / step,
        "grad_norm": 0.5,
        "learning_rate": 0.002,
        "time": 1000.0 + step,
        "tokens_per_second": 250.0,
        "peak_memory_bytes": 2_000_000_000,
    }
    for step in (1, 2, 3, 4)
] + [{"step": 4, "held_out_loss": 1.5}, {"step": 4, "train_runtime": 3.0}]


def read_events(path: Path) -> list[event_pb2.Event]:
    """Read a file of records: length, its checksum, data, its checksum."""
    data, place, events = path.read_bytes(), 0, []
    while place < len(data):
        (size,) = struct.unpack_from("<Q", data, place)
        events.append(event_pb2.Event.FromString(data[place + 12 : place + 12 + size]))
        place += 16 + size
    return events


def test_steps_are_json_lines(tmp_path: Path) -> None:
    """One object a step, in our names; what is no step is left out."""
    journal.write(HISTORY, tmp_path)

    first, *_, last = map(json.loads, (tmp_path / "steps.jsonl").read_text().splitlines())
    assert first == {
        "step": 1,
        "time": 1001.0,
        "loss": 4.0,
        "learningRate": 0.002,
        "gradientNorm": 0.5,
        "tokensPerSecond": 250.0,
        "peakMemoryBytes": 2_000_000_000,
    }
    assert last == {"step": 4, "heldOutLoss": 1.5}


def test_tensorboard_reads_the_same(tmp_path: Path) -> None:
    """Version first, then each step's scalars with its time."""
    journal.write(HISTORY, tmp_path)

    version, *events = read_events(tmp_path / "events.out.tfevents.training")
    losses = {
        event.step: value.simple_value
        for event in events
        for value in event.summary.value
        if value.tag == "train/loss"
    }
    assert version.file_version == "brain.Event:2"
    assert losses == pytest.approx({1: 4.0, 2: 2.0, 3: 4 / 3, 4: 1.0})
    assert [event.wall_time for event in events] == [1001.0, 1002.0, 1003.0, 1004.0, 1004.0]


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(HISTORY, id="several"),
        pytest.param(HISTORY[:1], id="one-step"),
        pytest.param([], id="none"),
        pytest.param([{"step": 1, "loss": float("inf")}], id="infinite"),
    ],
)
def test_the_curves_are_a_picture(tmp_path: Path, history: list[dict[str, Any]]) -> None:
    """Of two by two panels, whatever there is to draw."""
    journal.write(history, tmp_path)

    with Image.open(tmp_path / "curves.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1200, 760))


def test_a_step_is_noted_with_speed_and_memory(tmp_path: Path) -> None:
    """In Transformers' record, which is a part of the checkpoint, and for Prometheus."""
    board, tokens = Board(), iter((100, 160))
    journal_ = Journal(board, lambda: next(tokens))
    state, given = TrainerState(), (TrainingArguments(output_dir=str(tmp_path)),)
    journal_.on_train_begin(*given, state, TrainerControl())
    logs = {"loss": 2.0, "learning_rate": 0.001, "grad_norm": 0.7}
    state.log_history.append(logs | {"step": 1})

    journal_.on_log(*given, state, TrainerControl(), logs=logs)

    [entry] = state.log_history
    assert entry["tokens_per_second"] > 0
    assert entry["peak_memory_bytes"] > 1_000_000
    text = board.metrics().decode()
    assert "loraland_trainer_gradient_norm 0.7" in text
    assert "loraland_trainer_learning_rate 0.001" in text
