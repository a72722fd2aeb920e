"""The loss of a packed micro-step, and no logits where there is no label. No I/O.

Where a model's head is a plain matrix, head and cross entropy are computed together, some rows at a
time: the logits of a whole micro-step never exist. Other models get the positions of the labels as
``logits_to_keep``.

Shapes: T packed tokens, K tokens with a label, D hidden size, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Logits of so many bytes at once: what a processor's caches and a GPU's spare memory hold.
CHUNK_BYTES = 32 * 1024**2


class _HeadLoss(torch.autograd.Function):
    """Summed cross entropy of ``hidden @ weight.T``; the gradient is computed on the way."""

    @staticmethod
    def forward(ctx: Any, hidden_KD: Tensor, weight_VD: Tensor, labels_K: Tensor) -> Tensor:
        num_rows = max(1, CHUNK_BYTES // (4 * len(weight_VD)))
        gradient_KD = torch.empty_like(hidden_KD)
        total = hidden_KD.new_zeros((), dtype=torch.float32)
        for first in range(0, len(hidden_KD), num_rows):
            part = slice(first, first + num_rows)
            logits_cV = (hidden_KD[part] @ weight_VD.t()).float()
            wanted_c1 = labels_K[part, None]
            norm_c1 = logits_cV.logsumexp(dim=1, keepdim=True)
            total += (norm_c1 - logits_cV.gather(1, wanted_c1)).sum()
            error_cV = logits_cV.sub_(norm_c1).exp_()
            error_cV.scatter_add_(1, wanted_c1, torch.full_like(norm_c1, -1.0))
            torch.matmul(error_cV.to(weight_VD.dtype), weight_VD, out=gradient_KD[part])
        ctx.save_for_backward(gradient_KD)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient_KD,) = ctx.saved_tensors
        return gradient_KD * grads[0].to(gradient_KD.dtype), None, None


def head_loss(hidden_KD: Tensor, weight_VD: Tensor, labels_K: Tensor) -> Tensor:
    """Return the sum of the cross entropies; the head itself learns nothing."""
    total: Tensor = _HeadLoss.apply(hidden_KD, weight_VD, labels_K)  # type: ignore[no-untyped-call]
    return total


def packed_loss(base_model: Any, inputs: dict[str, Any], *, has_plain_head: bool) -> Tensor:
    """Return the summed cross entropy of a packed micro-step."""
    given = {name: inputs[name] for name in ("input_ids", "position_ids", "layout")}
    predictor_K, labels_K = inputs["predictor_K"], inputs["shift_labels"]
    if has_plain_head:
        backbone = getattr(base_model, base_model.base_model_prefix)
        hidden_KD = backbone(**given, use_cache=False).last_hidden_state[0, predictor_K]
        head = base_model.get_output_embeddings()
        return head_loss(hidden_KD.to(head.weight.dtype), head.weight, labels_K)
    logits = base_model(**given, use_cache=False, logits_to_keep=predictor_K).logits
    return functional.cross_entropy(logits[0].float(), labels_K, reduction="sum")


@torch.no_grad()
def is_head_plain(base_model: Any) -> bool:
    """Whether the model's logits are its last hidden state times its head's weight: tried, not read.

    Some model classes scale or cap their logits; some heads are quantized, or have a bias.
    """
    head = base_model.get_output_embeddings()
    backbone = getattr(base_model, base_model.base_model_prefix, None)
    if type(head) is not torch.nn.Linear or head.weight.requires_grad or backbone is None:
        return False
    ids = torch.arange(1, 9, device=head.weight.device)[None]
    hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state
    logits = base_model(input_ids=ids, use_cache=False).logits
    return bool(torch.allclose(hidden @ head.weight.t(), logits, rtol=1e-3, atol=1e-3))
