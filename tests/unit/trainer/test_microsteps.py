"""Memory that does not suffice: halved, then checkpointed, then given up; the gradient is the same."""

from collections.abc import Callable
from typing import Any

import pytest
import tiny_models
import torch
from loraland_core.resources.finetunejob import LoraSpec
from loraland_trainer import microsteps, model, packed_attention
from loraland_trainer.microsteps import MicroSteps
from loraland_trainer.packing import TokenRow

ROWS = [TokenRow([*range(n, n + 12)], 4) for n in (1, 20, 40, 60)]
NUM_LABELS = 16


def build(*, is_packed: bool = True, may_checkpoint: bool = True) -> tuple[Any, MicroSteps]:
    tuned = model.attach_adapter(tiny_models.build_llama(), LoraSpec(rank=4))
    steps = MicroSteps(tuned, is_packed=is_packed, pad_token_id=258, may_checkpoint=may_checkpoint)
    if is_packed:
        tuned.get_base_model().set_attn_implementation(packed_attention.NAME)
    return tuned.train(), steps


def limit(
    tuned: Any, *, most_tokens: int, checkpointed_tokens: int = 0, at_backward: bool = False
) -> list[int]:
    """Let the model run out of memory beyond so many tokens; return the sizes that were tried."""
    tried: list[int] = []
    base = tuned.get_base_model()

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("forced")

    def check(module: Any, given: Any, options: dict[str, Any]) -> None:
        size = options["input_ids"].numel()
        tried.append(size)
        most = checkpointed_tokens if base.is_activation_checkpointing else most_tokens
        if size > max(most, most_tokens) and not at_backward:
            fail()

    def check_backward(module: Any, given: Any, out: Any) -> None:
        if at_backward and tried[-1] > most_tokens and out.requires_grad:
            out.register_hook(fail)

    base.model.register_forward_pre_hook(check, with_kwargs=True)
    base.model.layers[0].mlp.register_forward_hook(check_backward)
    return tried


def learned(tuned: Any, steps: MicroSteps) -> tuple[float, list[torch.Tensor]]:
    loss = steps.learn(ROWS, NUM_LABELS)
    return float(loss), [p.grad for p in microsteps.trained(tuned) if p.grad is not None]


@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("at_backward", [False, True], ids=["forward", "backward"])
def test_what_does_not_fit_is_halved_and_learned_the_same(
    *, is_packed: bool, at_backward: bool
) -> None:
    """Four rows fail, two and two fit: loss and gradient are those of all four."""
    whole = learned(*build(is_packed=is_packed))
    tuned, steps = build(is_packed=is_packed)
    tried = limit(tuned, most_tokens=24, at_backward=at_backward)

    loss, gradients = learned(tuned, steps)

    assert tried == [48, 24, 24]
    assert loss == pytest.approx(whole[0], abs=1e-5)
    torch.testing.assert_close(gradients, whole[1], rtol=1e-4, atol=1e-6)


def test_what_did_not_fit_once_is_not_tried_again() -> None:
    """The next step of that size begins with halves."""
    tuned, steps = build()
    tried = limit(tuned, most_tokens=24)

    steps.learn(ROWS, NUM_LABELS)
    steps.learn(ROWS, NUM_LABELS)

    assert tried == [48, 24, 24, 24, 24]


def test_gradients_from_before_are_kept() -> None:
    """What earlier micro-steps of the step have learned survives one that runs out of memory."""
    _, twice = build()
    tuned, steps = build()

    for _ in range(2):
        twice.learn(ROWS, NUM_LABELS)
    steps.learn(ROWS, NUM_LABELS)
    limit(tuned, most_tokens=12, at_backward=True)
    steps.learn(ROWS, NUM_LABELS)

    expected = [p.grad for p in microsteps.trained(twice.model)]
    found = [p.grad for p in microsteps.trained(tuned)]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_row_too_large_is_checkpointed(caplog: pytest.LogCaptureFixture) -> None:
    """One row that fits only when activations are computed twice turns that on."""
    whole = learned(*build())
    tuned, steps = build()
    tried = limit(tuned, most_tokens=6, checkpointed_tokens=12)

    loss, gradients = learned(tuned, steps)

    assert loss == pytest.approx(whole[0], abs=1e-5)
    torch.testing.assert_close(gradients, whole[1], rtol=1e-4, atol=1e-6)
    assert tried[:4] == [48, 24, 12, 12]
    assert "gradient checkpointing is on" in caplog.text


@pytest.mark.parametrize("may_checkpoint", [True, False])
def test_a_row_that_never_fits_ends_the_job(*, may_checkpoint: bool) -> None:
    """The message says how long the row is; its exit code is 43."""
    tuned, steps = build(may_checkpoint=may_checkpoint)
    limit(tuned, most_tokens=6)

    with pytest.raises(MemoryError, match="one row of 12 tokens alone does not fit: forced"):
        steps.learn(ROWS, NUM_LABELS)


def test_other_errors_are_not_taken_for_memory() -> None:
    """A mistake is not tried again in halves."""
    tuned, steps = build()

    def fail(*_: Any) -> None:
        raise RuntimeError("shapes differ")

    tuned.get_base_model().model.register_forward_pre_hook(fail)

    with pytest.raises(RuntimeError, match="shapes differ"):
        steps.learn(ROWS, NUM_LABELS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda spec: spec, True, id="no-dropout"),
        pytest.param(lambda spec: spec.model_copy(update={"dropout": "0.1"}), False, id="dropout"),
    ],
)
def test_dropout_is_drawn_for_each_row(
    change: Callable[[LoraSpec], LoraSpec], expected: bool
) -> None:
    """Rows that share a beginning would share what is dropped of it."""
    tuned = model.attach_adapter(tiny_models.build_llama(), change(LoraSpec()))
    steps = MicroSteps(tuned, is_packed=True, pad_token_id=258, may_checkpoint=True)

    assert steps._shares_prefix is expected
