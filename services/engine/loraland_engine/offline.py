"""Generation and scoring without a server: a list in, a list out. No I/O but the adapter's.

Whoever scores an adapter uses this, so that a score comes from the very code that will serve it.
"""

import uuid
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loraland_engine.engine import Engine
from loraland_engine.sequence import FinishReason, SamplingParams


@dataclass(frozen=True)
class Completion:
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason


def generate(
    engine: Engine,
    prompts: Items[Items[int]],
    params: SamplingParams,
    *,
    adapter_folder: Path | None = None,
    on_finished: Callable[[int], None] = lambda _: None,
) -> list[Completion]:
    """Answer prompts, given as token ids, in their order; ``None`` as folder is the base model.

    ``on_finished`` is told how many are done, for progress.
    """
    with _slot(engine, adapter_folder) as adapter_id:
        return _run(engine, prompts, params, adapter_id, on_finished)


def score(
    engine: Engine,
    pairs: Items[tuple[Items[int], Items[int]]],
    *,
    adapter_folder: Path | None = None,
) -> list[float]:
    """Return the log-probability of each completion after its prompt, in their order."""
    found = [0.0] * len(pairs)
    with _slot(engine, adapter_folder) as adapter_id:
        for index, (prompt, completion) in enumerate(pairs):
            engine.submit_score(str(index), prompt, [completion], adapter_id=adapter_id)
        while engine.has_work():
            for output in engine.step():
                if output.failure is not None:
                    raise output.failure
                found[int(output.request_id)] = output.logprob
    return found


@contextmanager
def _slot(engine: Engine, adapter_folder: Path | None) -> Iterator[str]:
    """Put an adapter into a slot while the block runs; yield its id, none for the base model."""
    # A folder may hold other files by the next call: its name does not name its content.
    adapter_id = uuid.uuid4().hex if adapter_folder is not None else ""
    if adapter_folder is not None:
        engine.insert_adapter(adapter_id, engine.read_adapter(adapter_folder))
    try:
        yield adapter_id
    finally:
        if adapter_id:
            engine.remove_adapter(adapter_id)


def _run(
    engine: Engine,
    prompts: Items[Items[int]],
    params: SamplingParams,
    adapter_id: str,
    on_finished: Callable[[int], None],
) -> list[Completion]:
    for index, prompt in enumerate(prompts):
        engine.submit(str(index), prompt, params, adapter_id=adapter_id)
    texts = [""] * len(prompts)
    token_ids: list[list[int]] = [[] for _ in prompts]
    reasons: dict[int, FinishReason] = {}
    while engine.has_work():
        for output in engine.step():
            if output.failure is not None:
                raise output.failure
            index = int(output.request_id)
            texts[index] += output.text
            token_ids[index] += output.token_ids
            if output.finish_reason is not None:
                reasons[index] = output.finish_reason
                on_finished(len(reasons))
    return [
        Completion(text, tuple(ids), reasons[index])
        for index, (text, ids) in enumerate(zip(texts, token_ids, strict=True))
    ]
