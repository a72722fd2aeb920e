"""Greedy tokens are the same whatever else happens: batches, order, chunks, memory."""

import functools
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loraland_core.errors import InvalidInput
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.limits import EngineFull, Limits
from loraland_engine.memory import BLOCK_TOKENS
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
    """It is not begun, and the others go on; a large one is taken when nobody waits."""
    engine = build_engine(folders, limits=Limits(max_waiting=1))
    engine.submit("first", list(b"hello"), SamplingParams(n=2, max_tokens=3, ignore_eos=True))

    with pytest.raises(EngineFull):
        engine.submit("second", list(b"hello"), GREEDY)

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


def answer(engine: Engine, prompt: bytes, **options: Any) -> tuple[list[int], int]:
    """Return the tokens of a request that is alone, and how many of its prompt's were found."""
    engine.submit("r", list(prompt), GREEDY, **options)
    outputs = []
    while engine.has_work():
        outputs += engine.step()
    return [t for o in outputs for t in o.token_ids], outputs[-1].num_cached_tokens


def test_prompt_that_came_before_is_not_computed_again(folders: dict[str, Path]) -> None:
    """The tokens are the same, the blocks are found, and the hit rate says so."""
    engine = build_engine(folders)
    first, second = (answer(engine, SHARED, adapter_id="one") for _ in range(2))
    stats = engine.stats()

    assert first == (second[0], 0)
    assert second[1] == 2 * BLOCK_TOKENS
    assert (stats.num_prefix_query_tokens, stats.num_prefix_hit_tokens) == (80, 32)


@pytest.mark.parametrize(
    "options",
    [{"adapter_id": "two"}, {}, {"adapter_id": "one", "caller": Caller("other")}],
    ids=["adapter", "base", "tenant"],
)
def test_prompt_of_another_adapter_or_tenant_is_computed(
    folders: dict[str, Path], alone: dict[tuple[str, bytes], list[int]], options: dict[str, Any]
) -> None:
    """Keys and values are an adapter's own, and a tenant's own to know of."""
    engine = build_engine(folders)
    answer(engine, SHARED, adapter_id="one", caller=Caller("first"))

    found = answer(engine, SHARED, **options)

    assert found == (alone[options.get("adapter_id", ""), SHARED], 0)


def test_prefix_outlives_the_slot_of_its_adapter(folders: dict[str, Path]) -> None:
    """An adapter that was evicted and comes back, perhaps into another slot, finds its blocks."""
    engine = build_engine(folders)
    before, _ = answer(engine, SHARED, adapter_id="one")
    for name in ("one", "two"):
        engine.remove_adapter(name)
    for name in ("two", "one"):
        engine.insert_adapter(name, engine.read_adapter(folders[name]))

    assert answer(engine, SHARED, adapter_id="one") == (before, 2 * BLOCK_TOKENS)


def test_engine_without_prefix_cache_computes_every_prompt(folders: dict[str, Path]) -> None:
    """For those who measure."""
    engine = build_engine(folders, prefix_cache=False)
    first, second = (answer(engine, SHARED) for _ in range(2))

    assert (first, second[1]) == (second, 0)


def test_completions_of_one_request_share_the_computing_of_its_prompt(
    folders: dict[str, Path],
) -> None:
    """Four scored completions of one prompt: its blocks are computed once."""
    engine = build_engine(folders)
    engine.submit_score("s", list(SHARED), [[1, 2], [3], [4], [5, 6, 7]])
    outputs = []
    while engine.has_work():
        outputs += engine.step()

    assert [o.num_cached_tokens for o in sorted(outputs, key=lambda o: o.index)] == [0, 32, 32, 32]
