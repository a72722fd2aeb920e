"""Log-probabilities of tokens that are given, not chosen. No I/O.

Shapes: N positions of all scored sequences of a step, V vocabulary.
"""

from collections.abc import Sequence as Items

import torch
from torch import Tensor

from loraland_engine.scheduler import Chunk
from loraland_engine.sequence import TokenLogprob


def score(chunks: Items[Chunk], logits: dict[str, Tensor]) -> None:
    """Give each chunk's sequence the log-probabilities of the tokens that it is scored on."""
    wanted = [c for c in chunks if c.sequence.request_id in logits]
    if not wanted:
        return
    targets = [_targets(chunk) for chunk in wanted]
    with torch.inference_mode():
        logits_NV = torch.cat([logits[c.sequence.request_id] for c in wanted]).float()
        target_N1 = torch.tensor(
            [[t] for ts in targets for t in ts.values()], device=logits_NV.device
        )
        # The same as a gathered log_softmax, without a second [N, V].
        logprob_N = logits_NV.gather(1, target_N1)[:, 0] - logits_NV.logsumexp(dim=-1)
    values = iter(logprob_N.tolist())
    for chunk, tokens in zip(wanted, targets, strict=True):
        # By position, so that a sequence that is computed again is not scored twice.
        chunk.sequence.scores |= {
            position: TokenLogprob(token, next(values)) for position, token in tokens.items()
        }


def _targets(chunk: Chunk) -> dict[int, int]:
    """Return the scored tokens by position."""
    sequence = chunk.sequence
    positions = sequence.logit_positions(chunk.start, chunk.end)
    return {p + 1: sequence.token_ids[p + 1] for p in positions}
