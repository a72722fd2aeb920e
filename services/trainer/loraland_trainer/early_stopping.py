"""Ends a training whose held-out loss falls no more, and keeps the best adapter that it saw."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from loraland_core.resources.finetunejob import EarlyStoppingSpec
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)


class EarlyStopping(TrainerCallback):  # type: ignore[misc]
    """Looks at the held-out loss every so many steps; every process looks, and decides the same.

    What it has seen is noted in the run's log history, which is a part of every checkpoint. The best
    matrices are kept in memory only: after an interruption, those of the next look stand in for
    them.
    """

    def __init__(self, spec: EarlyStoppingSpec, measure: Callable[[], float]) -> None:
        self._spec = spec
        self._measure = measure
        self._best_weights: dict[str, Tensor] = {}
        self._best_loss = float("inf")
        self.stopped_at: int | None = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        if state.global_step % self._spec.every_steps:
            return
        loss = self._measure()
        before = [entry["held_out_loss"] for entry in looks(state)]
        state.log_history.append({"step": state.global_step, "held_out_loss": loss})
        log.info("step %d: held-out loss %.4f", state.global_step, loss)
        if loss < self._best_loss:
            self._keep(given["model"], loss)
        if num_in_vain([*before, loss], float(self._spec.min_improvement)) >= self._spec.patience:
            self.stopped_at = state.global_step
            control.should_training_stop = True
            log.info(
                "stopped early: the held-out loss has not fallen for %d looks", self._spec.patience
            )

    def _keep(self, model: nn.Module, loss: float) -> None:
        self._best_loss = loss
        self._best_weights = {
            n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad
        }

    @torch.no_grad()
    def restore_best(self, model: nn.Module) -> None:
        """Give the model the best matrices that were seen."""
        for name, parameter in model.named_parameters():
            if name in self._best_weights:
                parameter.copy_(self._best_weights[name])


def looks(state: TrainerState) -> list[dict[str, Any]]:
    return [entry for entry in state.log_history if "held_out_loss" in entry]


def num_in_vain(losses: list[float], min_improvement: float) -> int:
    """Return how many looks in a row, up to the last, found nothing better than before."""
    best, count = float("inf"), 0
    for loss in losses:
        if loss < best - min_improvement:
            best, count = loss, 0
        else:
            count += 1
    return count
