"""The training loop: Transformers' ``Trainer`` with our batches, our loss and our progress.

It stops for a request to terminate, after the running step, with a checkpoint; and it goes on from
the newest checkpoint as if it had never stopped.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from loraland_core.errors import InvalidInput, Unavailable
from loraland_core.resources.finetunejob import TrainingSpec
from loraland_models.weights import Precision
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from loraland_trainer import group
from loraland_trainer.batches import Collator, ExampleDataset, completion_loss, row_order
from loraland_trainer.checkpoints import Checkpoints
from loraland_trainer.examples import Example
from loraland_trainer.progress import Board
from loraland_trainer.termination import Terminator

log = logging.getLogger(__name__)
DEFAULT_EPOCHS = 3
MAX_GRADIENT_NORM = 1.0
# Lines about the loss in the log of a whole run.
LOG_LINES = 20
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Outcome:
    """What a finished training leaves beside the weights."""

    total_steps: int
    losses: list[float]
    num_tokens: int
    train_seconds: float

    @property
    def final_loss(self) -> float | None:
        """Mean of the last tenth of the steps: one batch alone says little."""
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(tail) / len(tail) if tail else None


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
        if (due or is_over) and group.rank() == 0:
            self._save(state, given)

    def _save(self, state: TrainerState, given: dict[str, Any]) -> None:
        try:
            self._checkpoints.save(
                model=given["model"],
                optimizer=given["optimizer"],
                scheduler=given["lr_scheduler"],
                state=state,
            )
        except Unavailable as error:
            # Steps that may have to be done again are better than none done.
            log.warning("no checkpoint of step %d: %s", state.global_step, error)


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Steps to board and log; a loss that is no number ends the job."""

    def __init__(self, board: Board, collator: Collator) -> None:
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
        if not math.isfinite(loss):
            raise InvalidInput(
                f"the loss is {loss} at step {state.global_step}; lower training.learningRate or"
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


def count_steps(spec: TrainingSpec, num_rows: int) -> int:
    """Return the optimizer steps that the job asks for."""
    if spec.max_steps is not None:
        return spec.max_steps
    batches = math.ceil(num_rows / (spec.batch_size * group.size()))
    return math.ceil(batches / spec.gradient_accumulation) * (spec.epochs or DEFAULT_EPOCHS)


def build_arguments(
    spec: TrainingSpec, *, total_steps: int, precision: Precision, work_dir: Path
) -> TrainingArguments:
    """Return Transformers' settings for the job's recipe."""
    has_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(work_dir),
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation,
        max_steps=total_steps,
        learning_rate=float(spec.learning_rate),
        lr_scheduler_type=SCHEDULES[spec.schedule],
        warmup_steps=math.ceil(float(spec.warmup_ratio) * total_steps),
        max_grad_norm=MAX_GRADIENT_NORM,
        weight_decay=0.0,
        optim="adamw_torch",
        seed=spec.seed,
        data_seed=spec.seed,
        # The order of the run is the data set's own.
        train_sampling_strategy="sequential",
        bf16=has_gpu and precision.dtype == "bf16",
        use_cpu=not has_gpu,
        ddp_backend="gloo" if group.size() > 1 and not has_gpu else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=has_gpu,
        dataloader_num_workers=0,
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


def _run_dataset(
    examples: Sequence[Example], spec: TrainingSpec, total_steps: int
) -> ExampleDataset:
    order = row_order(
        [example.num_tokens for example in examples],
        # The rows of one step, of which each process takes its part in order.
        batch_size=spec.batch_size * group.size(),
        num_batches=total_steps * spec.gradient_accumulation,
        seed=spec.seed,
    )
    return ExampleDataset(examples, order)


def train(
    model: Any,
    examples: Sequence[Example],
    spec: TrainingSpec,
    *,
    precision: Precision,
    pad_token_id: int,
    work_dir: Path,
    board: Board,
    checkpoints: Checkpoints,
    checkpoint_every_steps: int,
    terminator: Terminator,
) -> Outcome:
    """Train the model's adapter in place; raise ``Terminated`` if the pod was asked to stop."""
    total_steps = count_steps(spec, len(examples))
    collator = Collator(pad_token_id)
    model.config.use_cache = False
    trainer = Trainer(
        model=model,
        args=build_arguments(spec, total_steps=total_steps, precision=precision, work_dir=work_dir),
        train_dataset=_run_dataset(examples, spec, total_steps),
        data_collator=collator,
        compute_loss_func=completion_loss,
        callbacks=[
            Reporter(board, collator),
            Keeper(checkpoints, checkpoint_every_steps, terminator),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    started = time.monotonic()
    newest = checkpoints.fetch_newest()
    with terminator.deferred():
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    return Outcome(
        total_steps=total_steps,
        losses=[entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        num_tokens=collator.num_tokens,
        train_seconds=time.monotonic() - started,
    )
