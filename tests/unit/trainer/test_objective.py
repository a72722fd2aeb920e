"""Head and loss together, some rows at a time: the numbers of the plain way."""

import pytest
import tiny_models
import torch
from loraland_trainer import objective
from torch.nn import functional


def test_loss_and_gradient_are_the_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into chunks of two rows, in float32: 1e-5."""
    monkeypatch.setattr(objective, "CHUNK_BYTES", 2 * 4 * 50)
    torch.manual_seed(0)
    weight, labels = torch.randn(50, 8), torch.randint(50, (7,))
    hidden, plain = (torch.randn(7, 8).requires_grad_() for _ in range(2))
    plain.data = hidden.data.clone()

    found = objective.head_loss(hidden, weight, labels)
    expected = functional.cross_entropy(plain @ weight.t(), labels, reduction="sum")
    (found / 3).backward()
    (expected / 3).backward()

    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(hidden.grad, plain.grad, rtol=1e-5, atol=1e-5)


def test_a_plain_head_is_known() -> None:
    """Hidden state times weight is what the model says."""
    assert objective.is_head_plain(tiny_models.build_llama().requires_grad_(False))


def test_a_head_with_more_to_it_is_known() -> None:
    """A model that scales its logits is asked for them itself."""
    llama = tiny_models.build_llama().requires_grad_(False)
    head = llama.get_output_embeddings()
    head.register_forward_hook(lambda *given: given[2] * 2)

    assert not objective.is_head_plain(llama)
