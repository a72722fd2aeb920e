"""From the logits of a step to what each request gains: tokens, text, scores, and its end.

No I/O. Keeps what outlives a step beside the sequences: their detokenizers, and which completions of
a request are still alive.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from loraland_engine import sampler, scoring
from loraland_engine.detokenizer import Detokenizer
from loraland_engine.scheduler import Chunk
from loraland_engine.sequence import FinishReason, Output, Sequence, TokenLogprob


class Answers:
    """The live completions; ``end`` reports each one's end exactly once."""

    def __init__(
        self, tokenizer: Any, eos_token_ids: frozenset[int], clock: Callable[[], float]
    ) -> None:
        self._tokenizer = tokenizer
        self._eos_token_ids = eos_token_ids
        self._clock = clock
        self._detokenizers: dict[str, Detokenizer] = {}
        self._live: dict[str, list[str]] = defaultdict(list)

    def build_detokenizer(self, sequence: Sequence) -> Detokenizer | None:
        """Return what turns its output into text; None if nothing is generated."""
        if sequence.score_from is not None:
            return None
        return Detokenizer(self._tokenizer, sequence.token_ids, sequence.params.stop)

    def begin(self, sequence: Sequence, detokenizer: Detokenizer | None) -> None:
        self._live[sequence.owner_id].append(sequence.request_id)
        if detokenizer is not None:
            self._detokenizers[sequence.request_id] = detokenizer

    def live(self, owner_id: str) -> list[str]:
        """Return the ids of a request's sequences that have not ended."""
        return list(self._live.get(owner_id, ()))

    def advance(
        self, chunks: list[Chunk], logits: dict[str, Tensor], likeliest: dict[str, int]
    ) -> list[Output]:
        """Return what the step adds; an output with a finish reason is its sequence's last.

        ``likeliest`` has the likeliest token where it is known, by request.
        """
        scoring.score([c for c in chunks if c.sequence.score_from is not None], logits)
        outputs = []
        sampled: list[Sequence] = []
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.num_computed = chunk.end
            if chunk.is_last and sequence.score_from is not None:
                outputs.append(self.end(sequence, FinishReason.STOP))
            elif chunk.is_last and sequence.takes_likeliest and sequence.request_id in likeliest:
                choice = TokenLogprob(likeliest[sequence.request_id])
                outputs.append(self._gain(sequence, choice))
            elif chunk.is_last:
                sampled.append(sequence)
        if sampled:
            rows = torch.cat([logits[s.request_id] for s in sampled])
            choices = sampler.sample(rows, sampled)
            outputs += [self._gain(s, c) for s, c in zip(sampled, choices, strict=True)]
        return outputs

    def end(
        self,
        sequence: Sequence,
        reason: FinishReason,
        *,
        text: str = "",
        choice: TokenLogprob | None = None,
        error: str = "",
        failure: Exception | None = None,
    ) -> Output:
        """Report a sequence's end, with the text that was held back."""
        assert not sequence.has_ended, sequence.request_id
        detokenizer = self._detokenizers.pop(sequence.request_id, None)
        text += detokenizer.flush() if detokenizer else ""
        sequence.has_ended = True
        live = self._live[sequence.owner_id]
        live.remove(sequence.request_id)
        if not live:
            del self._live[sequence.owner_id]
        output = _output(sequence, text, choice)
        if sequence.score_from is not None:
            output["logprobs"] = tuple(p for _, p in sorted(sequence.scores.items()))
        return Output(
            **output,
            finish_reason=reason,
            num_prompt_tokens=sequence.score_from or sequence.num_prompt,
            num_output_tokens=sequence.num_output,
            num_cached_tokens=sequence.num_cached,
            timings=sequence.timings(self._clock()),
            error=error,
            failure=failure,
        )

    def _gain(self, sequence: Sequence, choice: TokenLogprob) -> Output:
        """Return what a token adds; a form or a text that raises ends its own completion alone."""
        try:
            if sequence.failure is not None:
                raise sequence.failure
            return self._accept(sequence, choice)
        except Exception as error:
            self._detokenizers.pop(sequence.request_id, None)
            return self.end(sequence, FinishReason.FAILED, failure=error)

    def _accept(self, sequence: Sequence, choice: TokenLogprob) -> Output:
        """Append a chosen token and decide whether it is the last."""
        if sequence.first_token_s is None:
            sequence.first_token_s = self._clock()
        constraint, params = sequence.constraint, sequence.params
        sequence.append(choice.token_id)
        if constraint is not None and constraint.error:
            return self.end(sequence, FinishReason.REFUSED, error=constraint.error)
        is_eos = choice.token_id in self._eos_token_ids and not params.ignore_eos
        if is_eos or choice.token_id in params.stop_token_ids:
            return self.end(sequence, FinishReason.STOP, choice=choice)
        text, stopped = self._detokenizers[sequence.request_id].add(choice.token_id)
        if stopped:
            del self._detokenizers[sequence.request_id]
        if stopped or (constraint is not None and constraint.is_complete):
            return self.end(sequence, FinishReason.STOP, text=text, choice=choice)
        if sequence.num_output >= params.max_tokens:
            return self.end(sequence, FinishReason.LENGTH, text=text, choice=choice)
        return Output(**_output(sequence, text, choice))


def _output(sequence: Sequence, text: str, choice: TokenLogprob | None) -> dict[str, Any]:
    wants_logprobs = choice is not None and sequence.params.num_logprobs is not None
    return {
        "request_id": sequence.owner_id,
        "index": sequence.index,
        "text": text,
        "token_ids": () if choice is None else (choice.token_id,),
        "logprobs": (choice,) if wants_logprobs else (),
    }
