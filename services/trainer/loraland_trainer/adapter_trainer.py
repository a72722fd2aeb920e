"""Transformers' ``Trainer`` with our micro-steps: one exchange of gradients a step, no padding counted."""

from typing import Any

from torch import Tensor
from transformers import Trainer

from loraland_trainer import group, microsteps
from loraland_trainer.microsteps import MicroSteps


class AdapterTrainer(Trainer):  # type: ignore[misc]
    """Lets ``MicroSteps`` compute what Transformers schedules, clips and steps."""

    def __init__(self, *, micro_steps: MicroSteps, **given: Any) -> None:
        super().__init__(**given)
        self._micro_steps = micro_steps

    def training_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Learn a micro-step; after a step's last, add the processes' gradients up."""
        model.train()
        assert num_items_in_batch is not None, "the collator gives labels, and they are counted"
        loss = self._micro_steps.learn(inputs["micro_step"].rows, num_items_in_batch)
        if self.accelerator.sync_gradients:
            group.sum_gradients(microsteps.trained(self.model))
        # Reported is the mean over processes, and each has its share of the sum.
        return loss * group.size()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        pass
