"""The step loop: schedule → run → postprocess. A library: no gRPC, no Redis, no S3, no threads.

Whoever drives it calls ``submit``, ``cancel`` and ``step`` from one thread. Adapters are read and
checked elsewhere (``adapter_file``) and enter a slot between two steps.
"""

import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from loraland_core.errors import InvalidInput
from torch import Tensor

from loraland_engine import adapter_file, sampler
from loraland_engine.detokenizer import Detokenizer
from loraland_engine.lora import AdapterSlots, LoraAdapter
from loraland_engine.runner import Runner
from loraland_engine.scheduler import Chunk, Scheduler
from loraland_engine.sequence import (
    NO_ADAPTER,
    FinishReason,
    Output,
    SamplingParams,
    Sequence,
)


@dataclass(frozen=True)
class EngineConfig:
    max_running: int = 16
    max_step_tokens: int = 256
    context_tokens: int = 2048
    num_slots: int = 8
    max_rank: int = 64


class Engine:
    """Batched generation over one base model and the adapters in its slots."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: EngineConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config or EngineConfig()
        self.tokenizer = tokenizer
        self._clock = clock
        self._slots = AdapterSlots(num_slots=self.config.num_slots)
        self._runner = Runner(
            model,
            slots=self._slots,
            max_running=self.config.max_running,
            context_tokens=self.config.context_tokens,
        )
        self._scheduler = Scheduler(
            max_running=self.config.max_running, max_step_tokens=self.config.max_step_tokens
        )
        self._detokenizers: dict[str, Detokenizer] = {}
        self._slot_of: dict[str, int] = {}
        self._eos_token_ids = _eos_token_ids(model, tokenizer)
        self._warm_up()

    @property
    def context_tokens(self) -> int:
        return self._runner.context_tokens

    @property
    def num_waiting(self) -> int:
        return self._scheduler.num_waiting

    @property
    def num_running(self) -> int:
        return self._scheduler.num_running

    @property
    def num_free_slots(self) -> int:
        return self.config.num_slots - len(self._slot_of)

    def close(self) -> None:
        """Give the model back as it came."""
        self._runner.close()

    def read_adapter(self, folder: Path) -> LoraAdapter:
        """Read and check an adapter's files; safe to call from another thread."""
        device = self._runner.device
        return adapter_file.load_adapter(
            folder,
            self._runner.linears,
            max_rank=self.config.max_rank,
            # CPUs do small bfloat16 products several times slower than float32 ones.
            dtype=torch.float32 if device.type == "cpu" else self._runner.model.dtype,
            device=device,
        )

    def insert_adapter(self, adapter_id: str, adapter: LoraAdapter) -> None:
        slot = self._slots.free_slot()
        assert slot is not None, "the caller evicts before it inserts"
        assert adapter_id not in self._slot_of, adapter_id
        self._slots.insert(slot, adapter)
        self._slot_of[adapter_id] = slot

    def has_adapter(self, adapter_id: str) -> bool:
        return adapter_id in self._slot_of

    def remove_adapter(self, adapter_id: str) -> None:
        """Free a slot that no request uses."""
        slot = self._slot_of[adapter_id]
        assert not self._scheduler.uses_adapter(slot), adapter_id
        del self._slot_of[adapter_id]
        self._slots.remove(slot)

    def submit(
        self,
        request_id: str,
        token_ids: Items[int],
        params: SamplingParams,
        *,
        adapter_id: str = "",
        deadline_s: float | None = None,
    ) -> None:
        """Queue a request; ``deadline_s`` is on the engine's clock."""
        self._check_length(token_ids, "input")
        room = self.context_tokens - len(token_ids)
        sequence = Sequence(
            request_id,
            list(token_ids),
            replace(params, max_tokens=min(params.max_tokens, room)),
            self._clock(),
            adapter_slot=self._slot_of[adapter_id] if adapter_id else NO_ADAPTER,
            deadline_s=deadline_s,
        )
        self._scheduler.add(sequence)
        self._detokenizers[request_id] = Detokenizer(self.tokenizer, token_ids, params.stop)

    def submit_score(
        self,
        request_id: str,
        prompt_ids: Items[int],
        completion_ids: Items[int],
        *,
        adapter_id: str = "",
        deadline_s: float | None = None,
    ) -> None:
        """Queue the scoring of one completion; its output carries ``logprob``."""
        token_ids = [*prompt_ids, *completion_ids]
        self._check_length(token_ids, "completions")
        if not completion_ids or not prompt_ids:
            raise InvalidInput("must have at least one token each", field="input, completions")
        self._scheduler.add(
            Sequence(
                request_id,
                token_ids,
                SamplingParams(),
                self._clock(),
                adapter_slot=self._slot_of[adapter_id] if adapter_id else NO_ADAPTER,
                deadline_s=deadline_s,
                score_from=len(prompt_ids),
            )
        )

    def cancel(self, request_id: str) -> None:
        self._scheduler.cancel(request_id)

    def now_s(self) -> float:
        """Return the time on the clock that deadlines are given in."""
        return self._clock()

    def has_work(self) -> bool:
        return self._scheduler.has_work()

    def step(self) -> list[Output]:
        """Advance every running request; return what each gained, or how it ended."""
        now_s = self._clock()
        outputs = [self._report_end(s, reason) for s, reason in self._scheduler.reap(now_s)]
        chunks = self._scheduler.schedule(now_s)
        if chunks:
            logits = self._runner.run(chunks)
            outputs += self._postprocess(chunks, logits)
        return outputs

    def _postprocess(self, chunks: list[Chunk], logits: dict[str, Tensor]) -> list[Output]:
        outputs = []
        sampled = []
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.num_computed = chunk.end
            if sequence.score_from is not None:
                sequence.logprob += _logprob(sequence, chunk, logits)
                if chunk.is_last:
                    outputs.append(self._end(sequence, FinishReason.STOP))
            elif chunk.is_last:
                sampled.append(sequence)
        if sampled:
            rows = torch.cat([logits[s.request_id] for s in sampled])
            tokens = sampler.sample(rows, sampled)
            outputs += [self._accept(s, t) for s, t in zip(sampled, tokens, strict=True)]
        return outputs

    def _accept(self, sequence: Sequence, token_id: int) -> Output:
        """Append a chosen token and decide whether it is the last."""
        if sequence.first_token_s is None:
            sequence.first_token_s = self._clock()
        sequence.token_ids.append(token_id)
        params = sequence.params
        is_eos = token_id in self._eos_token_ids and not params.ignore_eos
        if is_eos or token_id in params.stop_token_ids:
            return self._end(sequence, FinishReason.STOP, token_id=token_id)
        text, stopped = self._detokenizers[sequence.request_id].add(token_id)
        if stopped:
            self._detokenizers.pop(sequence.request_id)
            return self._end(sequence, FinishReason.STOP, text=text, token_id=token_id)
        if sequence.num_output >= params.max_tokens:
            return self._end(sequence, FinishReason.LENGTH, text=text, token_id=token_id)
        return Output(sequence.request_id, text, (token_id,))

    def _end(
        self,
        sequence: Sequence,
        reason: FinishReason,
        *,
        text: str = "",
        token_id: int | None = None,
    ) -> Output:
        self._scheduler.remove(sequence)
        return self._report_end(sequence, reason, text=text, token_id=token_id)

    def _report_end(
        self,
        sequence: Sequence,
        reason: FinishReason,
        *,
        text: str = "",
        token_id: int | None = None,
    ) -> Output:
        detokenizer = self._detokenizers.pop(sequence.request_id, None)
        return Output(
            sequence.request_id,
            text + (detokenizer.flush() if detokenizer else ""),
            () if token_id is None else (token_id,),
            reason,
            num_prompt_tokens=sequence.score_from or sequence.num_prompt,
            num_output_tokens=sequence.num_output,
            timings=sequence.timings(self._clock()),
            logprob=sequence.logprob if sequence.score_from is not None else None,
        )

    def _check_length(self, token_ids: Items[int], field: str) -> None:
        if not token_ids:
            raise InvalidInput("has no tokens", field=field)
        if len(token_ids) >= self.context_tokens:
            raise InvalidInput(
                f"has {len(token_ids)} tokens; the context holds {self.context_tokens},"
                " and at least one must be left for the answer",
                field=field,
            )

    def _warm_up(self) -> None:
        """Run both kinds of step once: libraries repack weights and pick kernels on first use."""
        self.submit("warm-up", [0, 0, 0], SamplingParams(max_tokens=2, ignore_eos=True))
        while self.has_work():
            self.step()


def _logprob(sequence: Sequence, chunk: Chunk, logits: dict[str, Tensor]) -> float:
    positions = sequence.logit_positions(chunk.start, chunk.end)
    if not positions:
        return 0.0
    logprobs = logits[sequence.request_id].float().log_softmax(dim=-1)
    targets = [[sequence.token_ids[p + 1]] for p in positions]
    return float(logprobs.gather(1, torch.tensor(targets, device=logprobs.device)).sum())


def _eos_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    found = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*found, tokenizer.eos_token_id] if i is not None)
