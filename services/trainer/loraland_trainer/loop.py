"""The training loop: Transformers' ``Trainer`` with our batches, our loss and our progress.

It stops for a request to terminate, after the running step, with a checkpoint; and it goes on from
the newest checkpoint as if it had never stopped.
"""

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from loraland_core.resources.finetunejob import LoraSpec, TrainingSpec
from loraland_models.weights import Precision
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from loraland_trainer import (
    fit,
    fused_lora,
    group,
    microsteps,
    optimizer,
    packed_attention,
    steps,
    trackers,
)
from loraland_trainer.adapter_trainer import AdapterTrainer
from loraland_trainer.callbacks import Keeper, Reporter
from loraland_trainer.checkpoints import Checkpoints
from loraland_trainer.early_stopping import EarlyStopping
from loraland_trainer.examples import Example
from loraland_trainer.journal import Journal
from loraland_trainer.microsteps import MicroSteps
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
    # Transformers' record of the run, with what the journal adds.
    history: list[dict[str, Any]]

    @property
    def final_loss(self) -> float | None:
        """Mean of the last tenth of the steps: one batch alone says little."""
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(tail) / len(tail) if tail else None


def count_steps(spec: TrainingSpec, num_rows: int) -> int:
    """Return the optimizer steps that the job asks for."""
    if spec.max_steps is not None:
        return spec.max_steps
    return math.ceil(num_rows / rows_a_step(spec)) * (spec.epochs or DEFAULT_EPOCHS)


def rows_a_step(spec: TrainingSpec) -> int:
    """Return the rows of an optimizer step, over all processes: the effective batch."""
    return spec.batch_size * spec.gradient_accumulation * group.size()


def build_arguments(
    spec: TrainingSpec, *, total_steps: int, num_parts: int, precision: Precision, work_dir: Path
) -> TrainingArguments:
    """Return Transformers' settings for the job's recipe."""
    has_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(work_dir),
        # An item of the data set is a micro-step, whole.
        per_device_train_batch_size=1,
        gradient_accumulation_steps=num_parts,
        max_steps=total_steps,
        learning_rate=float(spec.learning_rate),
        lr_scheduler_type=SCHEDULES[spec.schedule],
        warmup_steps=math.ceil(float(spec.warmup_ratio) * total_steps),
        max_grad_norm=MAX_GRADIENT_NORM,
        weight_decay=0.0,
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
        report_to=trackers.integrations(spec.report_to) or "none",
        disable_tqdm=True,
    )


def train(
    model: Any,
    examples: Sequence[Example],
    spec: TrainingSpec,
    *,
    lora: LoraSpec,
    precision: Precision,
    pad_token_id: int,
    work_dir: Path,
    board: Board,
    checkpoints: Checkpoints,
    checkpoint_every_steps: int,
    terminator: Terminator,
    held_out: Sequence[Example] = (),
) -> Outcome:
    """Train the model's adapter in place; raise ``Terminated`` if the pod was asked to stop."""
    group.join()
    model.config.use_cache = False
    with contextlib.ExitStack() as stack:
        micro_steps = stack.enter_context(prepared(model, spec, pad_token_id=pad_token_id))
        stopping = _early_stopping(spec, micro_steps, held_out)
        collator = steps.StepCollator()
        trainer = _build_trainer(
            micro_steps,
            examples,
            spec,
            lora=lora,
            precision=precision,
            work_dir=work_dir,
            collator=collator,
            callbacks=[
                Reporter(board, collator),
                Journal(board, lambda: collator.num_tokens),
                *stopping,
                Keeper(checkpoints, checkpoint_every_steps, terminator),
            ],
        )
        started = time.monotonic()
        newest = checkpoints.fetch_newest()
        with terminator.deferred():
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    for callback in stopping:
        callback.restore_best(model)
    return Outcome(
        total_steps=trainer.state.global_step,
        losses=[entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        history=list(trainer.state.log_history),
        num_tokens=collator.num_tokens,
        train_seconds=time.monotonic() - started,
    )


def _build_trainer(
    micro_steps: MicroSteps,
    examples: Sequence[Example],
    spec: TrainingSpec,
    *,
    lora: LoraSpec,
    precision: Precision,
    work_dir: Path,
    collator: steps.StepCollator,
    callbacks: list[TrainerCallback],
) -> AdapterTrainer:
    total_steps = count_steps(spec, len(examples))
    num_parts = fit.count_parts(micro_steps, examples, spec)
    is_quantized = precision.quantization != "none"
    trainer = AdapterTrainer(
        micro_steps=micro_steps,
        model=micro_steps.model,
        args=build_arguments(
            spec,
            total_steps=total_steps,
            num_parts=num_parts,
            precision=precision,
            work_dir=work_dir,
        ),
        train_dataset=_run_dataset(examples, spec, total_steps, num_parts, micro_steps.is_packed),
        data_collator=collator,
        optimizers=(
            optimizer.build(micro_steps.model, spec, lora, is_quantized=is_quantized),
            None,
        ),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    micro_steps.autocast = trainer.accelerator.autocast
    return trainer


@contextlib.contextmanager
def prepared(model: Any, spec: TrainingSpec, *, pad_token_id: int) -> Iterator[MicroSteps]:
    """Make the model ready to learn, and what was changed for that good again."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(fused_lora.installed(model))
        micro_steps = MicroSteps(
            model,
            is_packed=spec.batching == "Packed" and fit.may_pack(model),
            pad_token_id=pad_token_id,
            may_checkpoint=spec.gradient_checkpointing == "Auto",
        )
        if micro_steps.is_packed:
            stack.enter_context(packed_attention.installed(model.get_base_model()))
        if spec.gradient_checkpointing == "Always":
            microsteps.checkpoint_gradients(model.get_base_model())
        stack.callback(model.get_base_model().activation_checkpointing_disable)
        yield micro_steps


def _run_dataset(
    examples: Sequence[Example],
    spec: TrainingSpec,
    total_steps: int,
    num_parts: int,
    is_packed: bool,
) -> steps.StepDataset:
    parts = steps.plan(
        fit.lengths_of(examples),
        is_packed=is_packed,
        rows_a_step=rows_a_step(spec),
        # Of the parts of a step, each process takes its own in turn.
        parts_a_step=num_parts * group.size(),
        num_steps=total_steps,
        seed=spec.seed,
    )
    return steps.StepDataset(examples, parts)


def _early_stopping(
    spec: TrainingSpec, micro_steps: MicroSteps, held_out: Sequence[Example]
) -> list[EarlyStopping]:
    if spec.early_stopping is None:
        return []
    return [EarlyStopping(spec.early_stopping, lambda: micro_steps.mean_loss(held_out))]
