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
from loraland_core.resources.finetunejob import TrainingSpec
from loraland_models.weights import Precision
from transformers import PrinterCallback, Trainer, TrainingArguments

from loraland_trainer import group
from loraland_trainer.batches import Collator, ExampleDataset, completion_loss, row_order
from loraland_trainer.callbacks import Keeper, Reporter
from loraland_trainer.checkpoints import Checkpoints
from loraland_trainer.examples import Example
from loraland_trainer.progress import Board
from loraland_trainer.termination import Terminator

log = logging.getLogger(__name__)
DEFAULT_EPOCHS = 3
MAX_GRADIENT_NORM = 1.0
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
