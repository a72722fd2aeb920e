"""The training loop: Transformers' ``Trainer`` with our batches, our loss and our progress.

Two things differ from its defaults, both to do less work. Batches are padded on the left, so that
all completions end in the last column, and the model is asked for the logits of these columns only:
the vocabulary is most of a small model's arithmetic, and a prompt has no loss. And rows of similar
length share a batch.

Shapes: B rows, L columns, K the columns of the longest completion and the one before, V vocabulary.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from loraland_core.errors import InvalidInput
from loraland_core.resources.finetunejob import TrainingSpec
from loraland_models.weights import Precision
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from loraland_trainer.examples import Example
from loraland_trainer.progress import Board
from loraland_trainer.termination import Terminator

log = logging.getLogger(__name__)
IGNORED = -100
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


class ExampleDataset(Dataset[dict[str, list[int]]]):
    """Examples in the form that the sampler measures and the collator pads."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._items = [
            {"input_ids": [*e.prompt, *e.completion], "completion": e.completion} for e in examples
        ]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self._items[index]


class Collator:
    """Pads rows on the left; counts the tokens that are not padding."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id
        self.num_tokens = 0

    def __call__(self, items: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        num_columns = max(len(item["input_ids"]) for item in items)
        num_kept = min(max(len(item["completion"]) for item in items) + 1, num_columns)
        input_ids_BL = torch.full((len(items), num_columns), self._pad_token_id)
        attention_mask_BL = torch.zeros_like(input_ids_BL)
        labels_BK = torch.full((len(items), num_kept), IGNORED)
        for row, item in enumerate(items):
            ids, completion = item["input_ids"], item["completion"]
            input_ids_BL[row, -len(ids) :] = torch.tensor(ids)
            attention_mask_BL[row, -len(ids) :] = 1
            labels_BK[row, -len(completion) :] = torch.tensor(completion)
            self.num_tokens += len(ids)
        return {
            "input_ids": input_ids_BL,
            "attention_mask": attention_mask_BL,
            "position_ids": (attention_mask_BL.cumsum(-1) - 1).clamp(min=0),
            "labels": labels_BK,
            "logits_to_keep": num_kept,
        }


def completion_loss(
    outputs: Any, labels_BK: Tensor, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Return the cross entropy a completion token, over the whole accumulated batch.

    Only columns with a label reach the softmax, in float32.
    """
    predicted_BKV = outputs["logits"][:, :-1]
    wanted_BK = labels_BK[:, 1:].to(predicted_BKV.device)
    has_label_BK = wanted_BK != IGNORED
    total = torch.nn.functional.cross_entropy(
        predicted_BKV[has_label_BK].float(), wanted_BK[has_label_BK], reduction="sum"
    )
    count = has_label_BK.sum() if num_items_in_batch is None else num_items_in_batch
    return total / count


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Steps to board and log; stops for SIGTERM and for a loss that is no number."""

    def __init__(self, board: Board, collator: Collator, terminator: Terminator) -> None:
        self.losses: list[float] = []
        self._board = board
        self._collator = collator
        self._terminator = terminator
        self._started = 0.0
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started = time.monotonic()
        self._first_step = state.global_step
        self._board.update(step=state.global_step, total_steps=state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._terminator.requested:
            control.should_training_stop = True

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
        self.losses.append(loss)
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
    batches = math.ceil(num_rows / spec.batch_size)
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
        train_sampling_strategy="group_by_length",
        bf16=has_gpu and precision.dtype == "bf16",
        use_cpu=not has_gpu,
        dataloader_pin_memory=has_gpu,
        dataloader_num_workers=0,
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


def train(
    model: Any,
    examples: Sequence[Example],
    spec: TrainingSpec,
    *,
    precision: Precision,
    pad_token_id: int,
    work_dir: Path,
    board: Board,
    terminator: Terminator,
) -> Outcome:
    """Train the model's adapter in place; raise ``Terminated`` if the pod was asked to stop."""
    collator = Collator(pad_token_id)
    reporter = Reporter(board, collator, terminator)
    total_steps = count_steps(spec, len(examples))
    arguments = build_arguments(
        spec, total_steps=total_steps, precision=precision, work_dir=work_dir
    )
    model.config.use_cache = False
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=ExampleDataset(examples),
        data_collator=collator,
        compute_loss_func=completion_loss,
        callbacks=[reporter],
    )
    trainer.remove_callback(PrinterCallback)
    started = time.monotonic()
    with terminator.deferred():
        trainer.train()
    return Outcome(
        total_steps=total_steps,
        losses=reporter.losses,
        num_tokens=collator.num_tokens,
        train_seconds=time.monotonic() - started,
    )
