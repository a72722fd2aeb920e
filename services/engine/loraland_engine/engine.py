"""The step loop: schedule → run → postprocess. A library: no gRPC, no Redis, no S3, no threads.

Whoever drives it calls ``submit``, ``cancel`` and ``step`` from one thread. Adapters are read and
checked elsewhere (``adapter_file``) and enter a slot between two steps.
"""

import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loraland_core.errors import InvalidInput
from loraland_models import allocation

from loraland_engine import devices, memory
from loraland_engine.adapter_reader import AdapterReader
from loraland_engine.answers import Answers
from loraland_engine.limits import NO_LIMITS, Limits
from loraland_engine.lora import LoraAdapter
from loraland_engine.prefix_store import PrefixStore
from loraland_engine.runner import Runner
from loraland_engine.scheduler import Scheduler
from loraland_engine.sequence import (
    NO_ADAPTER,
    NOBODY,
    Caller,
    Constraint,
    Output,
    SamplingParams,
    Sequence,
)
from loraland_engine.stats import EngineStats


@dataclass(frozen=True)
class EngineConfig:
    max_running: int = 16
    max_step_tokens: int = 256
    context_tokens: int = 2048
    num_slots: int = 8
    # For keys and values; 0 is a share of what is free at the start.
    kv_memory_bytes: int = 0
    # Whether a quarter of that keeps the beginnings of prompts for whoever comes with the same.
    prefix_cache: bool = True
    limits: Limits = NO_LIMITS
    max_rank: int = 64
    # Our own forward pass where there is one for the model; False runs the model's own class.
    fused: bool = True
    # Whether the model can run by itself later; False frees what only that would read.
    keeps_model: bool = True


class Engine:
    """Batched generation over one base model and the adapters in its slots."""

    @allocation.large_apart()
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
        self._slots = devices.build_slots(
            model.device,
            num_slots=self.config.num_slots,
            max_tokens=self.config.max_step_tokens,
        )
        # Before anything is put there.
        kv_bytes = self.config.kv_memory_bytes or memory.default_bytes(model.device)
        self._runner = Runner(
            model,
            slots=self._slots,
            max_running=self.config.max_running,
            kv_bytes=kv_bytes,
            context_tokens=self.config.context_tokens,
            fused=self.config.fused,
        )
        self.adapters = AdapterReader(self._runner, max_rank=self.config.max_rank)
        self._blocks, self._prefixes = memory.build_blocks(
            self._runner.kv, kv_bytes, keeps_prefixes=self.config.prefix_cache
        )
        self._prefix_store = PrefixStore(self._runner.kv, self._prefixes)
        self._scheduler = Scheduler(
            max_running=self._runner.kv.num_slots,
            max_step_tokens=self.config.max_step_tokens,
            blocks=self._blocks,
            prefixes=self._prefixes,
            limits=self.config.limits,
        )
        self._slot_of: dict[str, int] = {}
        self.vocabulary_size: int = model.config.get_text_config().vocab_size
        self.eos_token_ids = _eos_token_ids(model, tokenizer)
        self._answers = Answers(tokenizer, self.eos_token_ids, clock)
        self._warm_up()
        if not self.config.keeps_model:
            self._runner.own_model()

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

    @property
    def kv_token_bytes(self) -> int:
        """What the keys and values of one token take."""
        return self._runner.kv.token_bytes

    def stats(self) -> EngineStats:
        return EngineStats(
            num_waiting=self._scheduler.num_waiting,
            num_running=self._scheduler.num_running,
            num_kv_blocks=self._blocks.num_blocks,
            num_free_kv_blocks=self._blocks.num_free,
            num_preemptions=self._scheduler.num_preemptions,
            num_prefix_query_tokens=self._prefixes.num_query_tokens,
            num_prefix_hit_tokens=self._prefixes.num_hit_tokens,
        )

    def close(self) -> None:
        """Give the model back as it came."""
        self._runner.close()

    def read_adapter(self, folder: Path) -> LoraAdapter:
        """Read and check an adapter's files; safe to call from another thread."""
        return self.adapters.read(folder)

    def insert_adapter(self, adapter_id: str, adapter: LoraAdapter) -> None:
        """Put an adapter into a slot. The id names its content: what is cached of it stays valid."""
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
        caller: Caller = NOBODY,
        constraint: Constraint | None = None,
        deadline_s: float | None = None,
    ) -> None:
        """Queue a request for ``params.n`` completions; ``deadline_s`` is on the engine's clock.

        Raises ``InvalidInput``, and ``EngineFull`` where too much is waiting.
        """
        self._check_length(token_ids, "input")
        room = self.context_tokens - len(token_ids)
        params = replace(params, max_tokens=min(params.max_tokens, room))
        build = self._builder(request_id, adapter_id, caller, deadline_s)
        self._begin(
            build(
                index, list(token_ids), params, constraint=constraint.copy() if constraint else None
            )
            for index in range(params.n)
        )

    def submit_score(
        self,
        request_id: str,
        prompt_ids: Items[int],
        completions: Items[Items[int]],
        *,
        adapter_id: str = "",
        caller: Caller = NOBODY,
        deadline_s: float | None = None,
    ) -> None:
        """Queue the scoring of completions; the output of each carries its ``logprobs``."""
        for index, completion_ids in enumerate(completions):
            self._check_length([*prompt_ids, *completion_ids], f"completions[{index}]")
            if not completion_ids or not prompt_ids:
                raise InvalidInput("has no tokens", field=f"completions[{index}]")
        build = self._builder(request_id, adapter_id, caller, deadline_s)
        self._begin(
            build(index, [*prompt_ids, *ids], SamplingParams(), score_from=len(prompt_ids))
            for index, ids in enumerate(completions)
        )

    def _builder(
        self, request_id: str, adapter_id: str, caller: Caller, deadline_s: float | None
    ) -> Callable[..., Sequence]:
        """Return what builds a request's sequences from what tells them apart."""
        common: dict[str, Any] = {
            "arrived_s": self._clock(),
            "adapter_slot": self._slot_of[adapter_id] if adapter_id else NO_ADAPTER,
            "adapter_id": adapter_id,
            "account": f"{caller.tenant}/{adapter_id}",
            "caller": caller,
            "deadline_s": deadline_s,
            "owner_id": request_id,
        }

        def build(index: int, token_ids: list[int], params: SamplingParams, **own: Any) -> Sequence:
            sequence_id = f"{request_id}#{index}" if index else request_id
            return Sequence(sequence_id, token_ids, params, index=index, **common, **own)

        return build

    def _begin(self, sequences: Iterable[Sequence]) -> None:
        # Whatever may raise comes before the first trace of the request.
        begun = [(s, self._answers.build_detokenizer(s)) for s in sequences]
        self._scheduler.add(*(sequence for sequence, _ in begun))
        for sequence, detokenizer in begun:
            self._answers.begin(sequence, detokenizer)

    def cancel(self, request_id: str) -> None:
        """End a request's completions with the next step; one that has ended is no error."""
        for sequence_id in self._answers.live(request_id):
            self._scheduler.cancel(sequence_id)

    def now_s(self) -> float:
        """Return the time on the clock that deadlines are given in."""
        return self._clock()

    def has_work(self) -> bool:
        return self._scheduler.has_work()

    def step(self) -> list[Output]:
        """Advance every running request; return what each gained, or how it ended."""
        now_s = self._clock()
        outputs = [self._answers.end(s, reason) for s, reason in self._scheduler.reap(now_s)]
        chunks = self._scheduler.schedule(now_s)
        if chunks:
            self._prefix_store.restore(chunks)
            logits = self._runner.run(chunks)
            self._prefix_store.keep(chunks)
            gained = self._answers.advance(chunks, logits, self._runner.likeliest)
            ended = [c.sequence for c in chunks if c.sequence.has_ended]
            for sequence in ended:
                self._scheduler.remove(sequence)
            outputs += gained
        return outputs

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


def _eos_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    found = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*found, tokenizer.eos_token_id] if i is not None)
