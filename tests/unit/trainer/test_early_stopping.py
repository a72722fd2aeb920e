"""A training whose held-out loss falls no more ends, with the best adapter that was seen."""

from typing import Any

import pytest
import torch
from loraland_core.resources.finetunejob import EarlyStoppingSpec
from loraland_trainer.early_stopping import EarlyStopping, num_in_vain
from transformers import TrainerControl, TrainerState, TrainingArguments


@pytest.mark.parametrize(
    ("losses", "min_improvement", "expected"),
    [
        pytest.param([3, 2, 1], 0, 0, id="falls"),
        pytest.param([1, 2, 3], 0, 2, id="rises"),
        pytest.param([3, 1, 2, 0.5], 0, 0, id="falls-again"),
        pytest.param([3, 2.95, 2.92], 0.1, 2, id="falls-too-little"),
        pytest.param([3, 2.95, 2.85], 0.1, 0, id="falls-enough-in-two"),
    ],
)
def test_looks_in_vain_are_counted(
    losses: list[float], min_improvement: float, expected: int
) -> None:
    """Those since the last that was better by enough."""
    assert num_in_vain(losses, min_improvement) == expected


def look_on(
    losses: list[float], **spec: Any
) -> tuple[EarlyStopping, TrainerState, torch.nn.Module]:
    """Go through steps with the given held-out losses, the weight being the step's number."""
    waiting = iter(losses)
    callback = EarlyStopping(EarlyStoppingSpec(**spec), lambda: next(waiting))
    state, control = TrainerState(), TrainerControl()
    arguments = TrainingArguments(use_cpu=True)
    model = torch.nn.Linear(1, 1, bias=False)
    while not control.should_training_stop and state.global_step < 20:
        state.global_step += 1
        model.weight.data.fill_(state.global_step)
        callback.on_step_end(arguments, state, control, model=model)
    return callback, state, model


def test_it_ends_after_looks_in_vain_and_keeps_the_best() -> None:
    """Every second step is looked at; the fourth was best."""
    callback, state, model = look_on([3.0, 1.0, 2.0, 2.5], every_steps=2, patience=2)

    callback.restore_best(model)

    assert state.global_step == callback.stopped_at == 8
    assert model.weight.item() == 4


def test_a_run_that_goes_on_remembers_its_looks() -> None:
    """They are a part of the state that checkpoints hold."""
    _, state, _ = look_on([3.0, 1.0, 2.0, 2.5], every_steps=2, patience=2)

    seen = [entry["held_out_loss"] for entry in state.log_history]
    assert seen == [3.0, 1.0, 2.0, 2.5]


def test_after_an_interruption_the_best_of_the_later_looks_is_kept() -> None:
    """The matrices of the best look went with the pod; those of the next best stand in."""
    waiting = iter([2.0, 1.5, 1.8])
    callback = EarlyStopping(EarlyStoppingSpec(every_steps=1, patience=9), lambda: next(waiting))
    state = TrainerState(log_history=[{"step": 1, "held_out_loss": 1.0}], global_step=1)
    model = torch.nn.Linear(1, 1, bias=False)
    for step in (2, 3, 4):
        state.global_step = step
        model.weight.data.fill_(step)
        callback.on_step_end(TrainingArguments(use_cpu=True), state, TrainerControl(), model=model)

    callback.restore_best(model)

    assert model.weight.item() == 3
