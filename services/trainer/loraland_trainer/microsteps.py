"""Forward and backward of a micro-step. What does not fit into memory is halved, and goes on.

The gradient of a step is the sum over its rows, however they are cut: a micro-step in two halves
leaves the same gradient, and the training neither restarts nor changes. One row that does not fit is
computed once more with gradient checkpointing; only then is there nothing left but to give up.
"""

import contextlib
import gc
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loraland_trainer import batches, group, memory, objective, packing, steps
from loraland_trainer.examples import Example
from loraland_trainer.packing import TokenRow

log = logging.getLogger(__name__)


class MicroSteps:
    """How rows are learned. ``is_packed``: end to end; else padded to the longest."""

    def __init__(
        self,
        model: Any,
        *,
        is_packed: bool,
        pad_token_id: int,
        may_checkpoint: bool,
    ) -> None:
        self.model = model
        self._base = model.get_base_model()
        self.is_packed = is_packed
        # With dropout, rows that share a beginning would share what is dropped of it.
        self._shares_prefix = not has_dropout(model)
        self._collate = batches.Collator(pad_token_id)
        self._may_checkpoint = may_checkpoint
        # What forward passes run in: mixed precision, where there is any.
        self.autocast: Any = contextlib.nullcontext
        self._has_plain_head = is_packed and objective.is_head_plain(self._base)
        # A micro-step of so many tokens did not fit.
        self._failing_tokens: int | None = None

    @property
    def device(self) -> str:
        return str(self._base.device)

    def learn(self, rows: Sequence[TokenRow], num_labels: Tensor | float) -> Tensor:
        """Add the rows' gradient, each label weighing 1 / num_labels; return their loss."""
        size = sum(len(row.tokens) for row in rows)
        if self._failing_tokens is not None and size >= self._failing_tokens and len(rows) > 1:
            return self._learn_halves(rows, num_labels)
        before = self._gradients()
        try:
            loss = self._attempt(rows, num_labels)
        except (MemoryError, RuntimeError) as error:
            if not memory.is_exhausted(error):
                raise
            cause = str(error)
        else:
            return loss
        # Past the handler: a traceback would keep what the failed pass had allocated.
        self._restore(before)
        release()
        return self._give_way(rows, num_labels, size=size, cause=cause)

    def _give_way(
        self, rows: Sequence[TokenRow], num_labels: Tensor | float, *, size: int, cause: str
    ) -> Tensor:
        if len(rows) > 1:
            self._failing_tokens = size
            log.warning("%d rows of %d tokens do not fit into memory: halved", len(rows), size)
            return self._learn_halves(rows, num_labels)
        if self._may_checkpoint and not self._base.is_activation_checkpointing:
            log.warning("one row of %d tokens does not fit: gradient checkpointing is on", size)
            checkpoint_gradients(self._base)
            return self.learn(rows, num_labels)
        raise MemoryError(f"one row of {size} tokens alone does not fit: {cause}")

    def _learn_halves(self, rows: Sequence[TokenRow], num_labels: Tensor | float) -> Tensor:
        # Ordered by length, every other row makes two halves of a size.
        return self.learn(rows[::2], num_labels) + self.learn(rows[1::2], num_labels)

    def _attempt(self, rows: Sequence[TokenRow], num_labels: Tensor | float) -> Tensor:
        with self.autocast():
            loss = self.total_loss(rows) / num_labels
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def total_loss(self, rows: Sequence[TokenRow]) -> Tensor:
        """Return the cross entropy summed over the rows' labels."""
        device = self._base.device
        if self.is_packed:
            inputs = packing.pack(rows, share_prefix=self._shares_prefix)
            moved = {name: value.to(device) for name, value in inputs.items()}
            return objective.packed_loss(self._base, moved, has_plain_head=self._has_plain_head)
        inputs = self._collate(
            [{"input_ids": r.tokens, "completion": r.tokens[-r.num_labels :]} for r in rows]
        )
        moved = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in inputs.items()}
        labels = moved.pop("labels")
        return batches.completion_loss(self._base(**moved, use_cache=False), labels, 1)

    def mean_loss(self, examples: Sequence[Example]) -> float:
        """Return the cross entropy a label over all examples, of which each process takes some."""
        rows = [steps.token_row(example) for example in examples[group.rank() :: group.size()]]
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), self.autocast():
            total = sum(float(self.total_loss(rows[i : i + 8])) for i in range(0, len(rows), 8))
        self.model.train(was_training)
        total, count = group.summed(total, sum(row.num_labels for row in rows))
        return total / count

    def kept_bytes_a_token(self, row: TokenRow) -> float:
        """Return what a forward pass keeps for backward, a token of this row."""
        with memory.counting_kept(self.model) as count, self.autocast():
            self.total_loss([row])
            return count() / len(row.tokens)

    def _gradients(self) -> list[Tensor | None]:
        return [None if p.grad is None else p.grad.clone() for p in trained(self.model)]

    def _restore(self, gradients: list[Tensor | None]) -> None:
        for parameter, gradient in zip(trained(self.model), gradients, strict=True):
            parameter.grad = gradient


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def has_dropout(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())


def checkpoint_gradients(base_model: Any) -> None:
    """Keep the inputs of layers alone, and compute the rest again in backward."""
    base_model.activation_checkpointing_enable({"use_reentrant": False})


def release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
