"""What looks on while the loop runs: the keeper of checkpoints, and the reporter of steps."""

import logging
import math
import time
from typing import Any

from loraland_core.errors import InvalidInput
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loraland_trainer import group
from loraland_trainer.checkpoints import Checkpoints, random_state
from loraland_trainer.progress import Board
from loraland_trainer.steps import StepCollator
from loraland_trainer.termination import Terminator

log = logging.getLogger(__name__)
# Lines about the loss in the log of a whole run.
LOG_LINES = 20


class Keeper(TrainerCallback):  # type: ignore[misc]
    """Saves checkpoints; for SIGTERM one more, and then the loop ends."""

    def __init__(self, checkpoints: Checkpoints, every_steps: int, terminator: Terminator) -> None:
        self._checkpoints = checkpoints
        self._every_steps = every_steps
        self._terminator = terminator

    # After the loss was noted in the state, which is a part of the checkpoint.
    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        if "loss" not in given["logs"]:
            return
        # One process that was asked to stop stops all, after the same step.
        is_over = group.any_of(self._terminator.requested)
        if is_over:
            self._terminator.requested = True
            control.should_training_stop = True
        due = state.global_step % self._every_steps == 0 and state.global_step < state.max_steps
        if not (due or is_over):
            return
        random_states = group.gathered(random_state())
        if group.rank() == 0:
            self._checkpoints.save(
                model=given["model"],
                optimizer=given["optimizer"],
                scheduler=given["lr_scheduler"],
                state=state,
                random_states=random_states,
            )
        if is_over:
            # The pod's grace period is for this.
            self._checkpoints.wait()
            # The launcher ends all others soon after the first that ends: they end together.
            group.any_of(is_over)


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Steps to board and log; a loss that is no number ends the job."""

    def __init__(self, board: Board, collator: StepCollator) -> None:
        self._board = board
        self._collator = collator
        self._started = 0.0
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started = time.monotonic()
        self._first_step = state.global_step
        self._board.update(step=state.global_step, total_steps=state.max_steps)

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
        loss = logs["loss"]
        # After the last step no loss would tell that its gradient has spoilt the weights.
        norm = logs.get("grad_norm", 0.0)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            found = f"gradient's norm is {norm}" if math.isfinite(loss) else f"loss is {loss}"
            raise InvalidInput(
                f"the {found} at step {state.global_step}; lower training.learningRate or"
                " look for broken rows",
                field="spec.training",
                reason="LossNotFinite",
            )
        self._report(state, loss, logs.get("learning_rate", 0.0))

    def _report(self, state: TrainerState, loss: float, learning_rate: float) -> None:
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        num_done = max(state.global_step - self._first_step, 1)
        tokens_per_second = self._collator.num_tokens / elapsed_s
        eta_s = elapsed_s / num_done * (state.max_steps - state.global_step)
        self._board.update(
            step=state.global_step,
            total_steps=state.max_steps,
            loss=loss,
            tokens_per_second=round(tokens_per_second, 1),
            eta_seconds=round(eta_s, 1),
        )
        every = max(1, state.max_steps // LOG_LINES)
        if state.global_step % every == 0 or state.global_step in (1, state.max_steps):
            log.info(
                "step %d/%d  loss %.4f  learning rate %.2e  %.0f tokens/s  %.0f s left",
                state.global_step,
                state.max_steps,
                loss,
                learning_rate,
                tokens_per_second,
                eta_s,
            )
