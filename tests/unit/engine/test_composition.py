"""Greedy tokens are the same whatever else happens: batches, order, chunks, memory."""

import functools
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loraland_core.errors import InvalidInput
from loraland_engine.engine import BLOCK_TOKENS, Engine, EngineConfig
from loraland_engine.limits import EngineFull, Limits
from loraland_engine.sequence import Caller, FinishReason, SamplingParams

CONTEXT = 64
# Prompts that share beginnings, within adapters and across them.
SHARED = bytes(range(65, 65 + 40))
PROMPTS = [(adapter, prompt) for adapter in ("", "one", "two")
           for prompt in (SHARED, SHARED[:20] + b"else", b"short")]  # fmt: skip
GREEDY = SamplingParams(max_tokens=16, ignore_eos=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        "one": tiny_models.write_adapter(root / "one", seed=1, rank=4),
        "two": tiny_models.write_adapter(root / "two", seed=2, rank=8),
    }


@functools.cache
def token_bytes() -> int:
    engine = Engine(tiny_models.build_llama(), tiny_models.ByteTokenizer(), EngineConfig())
    engine.close()
    return engine.kv_token_bytes


def build_engine(folders: dict[str, Path], *, contexts: int = 4, **config: Any) -> Engine:
    """Return an engine with KV memory for so many whole contexts."""
    options = {"max_running": 4, "max_step_tokens": 32, "context_tokens": CONTEXT, "num_slots": 2,
               "kv_memory_bytes": contexts * CONTEXT * token_bytes()} | config  # fmt: skip
    engine = Engine(tiny_models.build_llama(), tiny_models.ByteTokenizer(), EngineConfig(**options))
    for name, folder in folders.items():
        engine.insert_adapter(name, engine.read_adapter(folder))
    return engine


def run(engine: Engine, requests: list[tuple[str, bytes]], gaps: list[int]) -> list[list[int]]:
    """Submit each request after so many steps; return everybody's tokens."""
    found: dict[str, list[int]] = {str(i): [] for i in range(len(requests))}
    ends: list[str] = []

    def step() -> None:
        for output in engine.step():
            assert output.request_id not in ends
            found[output.request_id] += output.token_ids
            if output.finish_reason:
                ends.append(output.request_id)

    for index, (adapter, prompt) in enumerate(requests):
        engine.submit(str(index), list(prompt), GREEDY, adapter_id=adapter)
        for _ in range(gaps[index % len(gaps)]):
            step()
    while engine.has_work():
        step()
    assert sorted(ends) == sorted(found)
    return list(found.values())


@pytest.fixture(scope="module")
def alone(folders: dict[str, Path]) -> dict[tuple[str, bytes], list[int]]:
    """Each request's tokens when nobody else is there and its prompt is computed in one piece."""
    engine = build_engine(folders, max_step_tokens=CONTEXT)
    answers = {request: run(engine, [request], [0])[0] for request in PROMPTS}
    engine.close()
    return answers


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=10),
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.tuples(st.sampled_from([4, 7, 32]), st.sampled_from([1, 2, 4])),
)
def test_greedy_tokens_do_not_depend_on_who_else_is_there(
    folders: dict[str, Path],
    alone: dict[tuple[str, bytes], list[int]],
    requests: list[tuple[str, bytes]],
    gaps: list[int],
    limits: tuple[int, int],
) -> None:
    """Any batch, order of arrival, size of chunks, and memory so short that some give way."""
    engine = build_engine(folders, max_step_tokens=limits[0], contexts=limits[1])

    answers = run(engine, requests, gaps)

    assert answers == [alone[request] for request in requests]
    assert engine.stats().num_free_kv_blocks == engine.stats().num_kv_blocks
    engine.close()


def test_engine_preempts_and_answers_all_when_kv_memory_is_short(
    folders: dict[str, Path], alone: dict[tuple[str, bytes], list[int]]
) -> None:
    """Memory for one context and four requests that grow: some give way, none is lost."""
    engine = build_engine(folders, contexts=1)
    requests = [("", b"short"), ("one", SHARED[:20] + b"else"), ("two", b"short"), ("", b"short")]

    answers = run(engine, requests, [0])

    assert answers == [alone[request] for request in requests]
    assert engine.stats().num_preemptions > 0


def test_engine_refuses_memory_that_holds_no_context(folders: dict[str, Path]) -> None:
    """It says so at the start, and not to whoever sends the first long prompt."""
    with pytest.raises(InvalidInput, match="one context alone takes"):
        build_engine(folders, contexts=0, kv_memory_bytes=BLOCK_TOKENS)


def test_engine_refuses_a_request_when_too_much_waits(folders: dict[str, Path]) -> None:
    """Of a request for three completions none is begun, and the others go on."""
    engine = build_engine(folders, limits=Limits(max_waiting=2))
    engine.submit("first", list(b"hello"), GREEDY)

    with pytest.raises(EngineFull):
        engine.submit("many", list(b"hello"), SamplingParams(n=3))

    outputs = []
    while engine.has_work():
        outputs += engine.step()
    assert {o.request_id for o in outputs} == {"first"}
    assert outputs[-1].finish_reason == FinishReason.LENGTH


def test_engine_shares_between_tenants_of_one_adapter(folders: dict[str, Path]) -> None:
    """A tenant with one request does not wait for all those of another tenant."""
    engine = build_engine(folders, max_running=1)
    for index in range(4):
        engine.submit(f"many{index}", list(b"x"), GREEDY, adapter_id="one", caller=Caller("big"))
    engine.step()
    engine.submit("single", list(b"x"), GREEDY, adapter_id="one", caller=Caller("small"))

    ends = []
    while engine.has_work():
        ends += [o.request_id for o in engine.step() if o.finish_reason]

    assert ends.index("single") == 1
