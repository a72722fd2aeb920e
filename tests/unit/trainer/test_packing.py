"""Rows end to end: each row's loss and gradient are what they are when it is alone."""

from itertools import pairwise
from typing import Any

import families
import pytest
import tiny_models
import torch
from loraland_core.resources.finetunejob import LoraSpec
from loraland_trainer import fused_lora, model, objective, packed_attention, packing
from loraland_trainer.packing import TokenRow

SHARED = list(range(40, 60))
APART = [TokenRow([1, 2, 3, 4, 5], 2), TokenRow([6, 7, 8, 9], 3), TokenRow([*range(10, 40)], 1)]
TOGETHER = [TokenRow([*SHARED, *row.tokens], row.num_labels) for row in APART]
TWINS = [TokenRow([*SHARED, 1, 2], 1), TokenRow([*SHARED, 1, 2], 1), TokenRow([*SHARED, 3], 1)]
CASES = [
    pytest.param(APART, id="nothing-shared"),
    pytest.param(TOGETHER, id="shared-beginning"),
    pytest.param(TWINS, id="equal-rows"),
    pytest.param(APART[:1], id="one-row"),
]


def losses_alone(llama: Any, rows: list[TokenRow]) -> list[float]:
    found = []
    for row in rows:
        ids = torch.tensor([row.tokens])
        logits = llama(input_ids=ids, use_cache=False).logits[0, -row.num_labels - 1 : -1]
        wanted = ids[0, -row.num_labels :]
        found.append(float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")))
    return found


def losses_packed(llama: Any, rows: list[TokenRow]) -> list[float]:
    inputs = packing.pack(rows, share_prefix=True)
    labels, predictor = inputs.pop("shift_labels"), inputs.pop("predictor_K")
    with packed_attention.installed(llama):
        logits = llama(**inputs, use_cache=False, logits_to_keep=predictor).logits[0]
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    parts = torch.split(losses, [row.num_labels for row in rows])
    return [float(part.sum()) for part in parts]


@pytest.mark.parametrize("rows", CASES)
@torch.no_grad()
def test_each_row_of_a_packed_batch_has_its_own_loss(rows: list[TokenRow]) -> None:
    """No row sees another, and each begins at position 0: 1e-5 in float32."""
    llama = tiny_models.build_llama()

    assert losses_packed(llama, rows) == pytest.approx(losses_alone(llama, rows), abs=1e-5)


@pytest.mark.parametrize("family", families.FAMILIES)
@torch.no_grad()
def test_every_family_packs(family: str) -> None:
    """The model class itself runs; only its attention is ours."""
    tuned = families.build(family).eval()

    expected = losses_alone(tuned, TOGETHER)
    assert losses_packed(tuned, TOGETHER) == pytest.approx(expected, abs=2e-4)


def gradients(rows: list[TokenRow], *, is_packed: bool) -> dict[str, torch.Tensor]:
    """Return the adapter's gradients, by our way or by PEFT's with single rows."""
    tuned = model.attach_adapter(
        tiny_models.build_llama(), LoraSpec(rank=4, target_modules=["all-linear"])
    )
    torch.manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    base = tuned.get_base_model()
    if is_packed:
        with fused_lora.installed(tuned), packed_attention.installed(base):
            inputs = packing.pack(rows, share_prefix=True)
            objective.packed_loss(base, inputs, has_plain_head=True).backward()
    else:
        for row in rows:
            ids = torch.tensor([row.tokens])
            logits = base(input_ids=ids).logits[0, -row.num_labels - 1 : -1]
            wanted = ids[0, -row.num_labels :]
            torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").backward()
    return {n: p.grad for n, p in tuned.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rows", CASES)
def test_a_packed_batch_has_the_rows_gradients(rows: list[TokenRow]) -> None:
    """Packing, one head for all labels, fused linears: what the adapter learns is the same."""
    alone, packed = gradients(rows, is_packed=False), gradients(rows, is_packed=True)

    assert alone.keys() == packed.keys()
    for name, gradient in alone.items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-4, atol=1e-5)


def test_what_all_rows_begin_with_stands_there_once() -> None:
    """Twenty shared tokens of three rows, and positions that count them for each row."""
    inputs = packing.pack(TOGETHER, share_prefix=True)

    assert inputs["layout"].num_shared == 20
    assert inputs["input_ids"].shape == (1, 20 + 5 + 4 + 30)
    assert inputs["position_ids"][0, 20:25].tolist() == [20, 21, 22, 23, 24]
    assert inputs["shift_labels"].tolist() == [4, 5, 7, 8, 9, 39]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param(TOGETHER, 20, id="all-begin-so"),
        pytest.param(TOGETHER[:1], 0, id="one-row"),
        pytest.param([*TOGETHER, APART[0]], 0, id="one-begins-otherwise"),
        pytest.param(TWINS, 19, id="each-keeps-a-token-to-predict-from"),
        pytest.param([TokenRow([1, 2, 3, 4], 1)] * 2, 0, id="too-short-to-matter"),
    ],
)
def test_the_shared_beginning_is_found(rows: list[TokenRow], expected: int) -> None:
    """It is the longest that all rows have, and never a whole prompt."""
    assert packing.shared_length(rows) == expected


def test_rows_of_a_group_are_of_similar_length() -> None:
    """Attention is padded by less than a half, whatever the lengths."""
    lengths = [1, 2, 3, 50, 60, 64, 400, 7, 7, 7]

    layout = packing.build_layout(lengths, 0)

    assert len(layout.token_M) < 1.5 * sum(lengths)
    assert sorted(layout.place_N.tolist()) == layout.place_N.unique().tolist()
    assert layout.token_M[layout.place_N].tolist() == list(range(sum(lengths)))
    assert all(a.num_tokens > b.num_tokens for a, b in pairwise(layout.groups))


def test_a_window_that_rows_outgrow_is_refused() -> None:
    """A sliding window would be passed over in silence."""
    query = torch.zeros(1, 1, 9, 4)
    layout = packing.build_layout([9], 0)

    with pytest.raises(ValueError, match="window of 8 tokens"):
        packed_attention.attend(
            torch.nn.Identity(), query, query, query, None, layout=layout, sliding_window=8
        )


def test_the_models_own_attention_comes_back() -> None:
    """Scores are measured with the model as it was."""
    llama = tiny_models.build_llama()
    before = llama.config._attn_implementation

    with packed_attention.installed(llama):
        assert llama.config._attn_implementation == packed_attention.NAME

    assert llama.config._attn_implementation == before
