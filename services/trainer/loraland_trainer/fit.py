"""What a model bears, tried on the model itself: rows end to end, and how many of them at once."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from loraland_core.resources.finetunejob import TrainingSpec
from torch import Tensor
from torch.nn import functional

from loraland_trainer import group, memory, packed_attention, packing, steps
from loraland_trainer.examples import Example
from loraland_trainer.microsteps import MicroSteps
from loraland_trainer.packing import TokenRow

log = logging.getLogger(__name__)
# More tokens at once make nothing faster: matrix products are as large as they need to be.
FAST_TOKENS_ON_CPU = 2048
FAST_TOKENS_ON_GPU = 16384
# What is kept for backward may take this share of the memory: backward itself needs some as well.
MEMORY_SHARE = 0.5
# By how much a packed row's loss may differ from the same row's alone, relative to it.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}


def lengths_of(examples: Sequence[Example]) -> Sequence[int]:
    """Return the tokens of each example; those that lie on disk know them without being read."""
    known: Sequence[int] | None = getattr(examples, "lengths", None)
    return known if known is not None else [example.num_tokens for example in examples]


def count_parts(micro_steps: MicroSteps, examples: Sequence[Example], spec: TrainingSpec) -> int:
    """Return into how many micro-steps each process cuts its rows of a step: a power of two.

    As few as the memory allows, and no fewer than are as fast. Without ``autoBatchSize`` they are
    as many as the job says.
    """
    if not spec.auto_batch_size:
        return spec.gradient_accumulation
    rows_a_process = spec.batch_size * spec.gradient_accumulation
    lengths = lengths_of(examples)
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    mean_tokens = rows_a_process * sum(lengths) / len(lengths)
    most_tokens = rows_a_process * lengths[longest]
    if micro_steps.is_packed:
        most_tokens = min(most_tokens, sum(sorted(lengths)[-rows_a_process:]))
    is_on_gpu = micro_steps.device.startswith("cuda")
    wanted = max(
        mean_tokens / (FAST_TOKENS_ON_GPU if is_on_gpu else FAST_TOKENS_ON_CPU),
        # The worst step must fit: a CPU's memory has no second try.
        most_tokens / _fitting_tokens(micro_steps, examples[longest]),
    )
    num_parts = 2 ** max(0, math.ceil(math.log2(wanted)))
    num_parts = group.largest(min(num_parts, rows_a_process))
    log.info(
        "%d rows a step in %d micro-steps of about %d tokens",
        rows_a_process * group.size(),
        num_parts * group.size(),
        mean_tokens / num_parts,
    )
    return num_parts


def _fitting_tokens(micro_steps: MicroSteps, longest: Example) -> float:
    """Return how many tokens the memory holds, at least one: measured with the longest row."""
    try:
        kept_bytes = micro_steps.kept_bytes_a_token(steps.token_row(longest))
    except (MemoryError, RuntimeError) as error:
        if not memory.is_exhausted(error):
            raise
        return 1
    return max(1, MEMORY_SHARE * memory.available_bytes(micro_steps.device) / max(kept_bytes, 1))


@torch.no_grad()
def may_pack(model: Any) -> bool:
    """Whether a row's loss stays what it is when other rows lie beside it.

    A model that mixes what lies in one sequence (a recurrent one, an attention with a window or with
    terms that we do not know) shows it here, and its rows are padded instead.
    """
    base_model = model.get_base_model()
    device, vocabulary = base_model.device, base_model.config.get_text_config().vocab_size
    tokens = [(7 * i + 3) % vocabulary for i in range(48)]
    rows = [TokenRow([*tokens[:12], *tokens[first : first + 12]], 4) for first in (12, 24, 36)]
    rows[1] = TokenRow(rows[1].tokens[:-3], 4)
    was_training = model.training
    model.eval()
    try:
        alone = [_plain_loss(base_model, row, device) for row in rows]
        together = _packed_losses(base_model, rows, device)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, IndexError) as error:
        log.info("rows are padded: this model does not take them end to end (%s)", error)
        return False
    finally:
        model.train(was_training)
    tolerance = TOLERANCES.get(base_model.dtype, 1e-3)
    is_same = bool(torch.allclose(torch.stack(alone), together, rtol=tolerance, atol=tolerance))
    if not is_same:
        log.info("rows are padded: end to end, this model mixes them")
    return is_same


def _plain_loss(base_model: Any, row: TokenRow, device: torch.device) -> Tensor:
    ids = torch.tensor([list(row.tokens)], device=device)
    logits = base_model(input_ids=ids, use_cache=False).logits[0]
    predicted = logits[-row.num_labels - 1 : -1].float()
    return functional.cross_entropy(predicted, ids[0, -row.num_labels :])


def _packed_losses(base_model: Any, rows: list[TokenRow], device: torch.device) -> Tensor:
    inputs = packing.pack(rows, share_prefix=True)
    given = {name: value.to(device) for name, value in inputs.items()}
    labels, predictor = given.pop("shift_labels"), given.pop("predictor_K")
    with packed_attention.installed(base_model):
        logits = base_model(**given, use_cache=False, logits_to_keep=predictor).logits[0]
    losses = functional.cross_entropy(logits.float(), labels, reduction="none")
    return torch.stack([part.mean() for part in torch.split(losses, [r.num_labels for r in rows])])
