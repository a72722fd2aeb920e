"""The compiled step of decoding rows: its products, its sharing of work, and the step as a whole."""

import mmap
from dataclasses import dataclass, replace

import numpy as np
import pytest
import tiny_models
import torch
from loraland_engine import (
    byte_blocks,
    byte_products,
    decode_step,
    decoder,
    half_blocks,
    head_choice,
    native,
    tile_registers,
    turns,
)
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.native import compiled, spread
from loraland_engine.sequence import SamplingParams
from loraland_models import int8

needs_byte_products = pytest.mark.skipif(
    not byte_blocks.is_supported(byte_blocks.WIDTH), reason="the processor has no AVX-512 VNNI"
)

needs_half_products = pytest.mark.skipif(
    not half_blocks.is_supported(), reason="the processor has neither AMX nor AVX512 bf16"
)
PRECISIONS = [
    pytest.param("int8", marks=needs_byte_products),
    pytest.param("bf16", marks=needs_half_products),
]


@needs_byte_products
@pytest.mark.parametrize("num_rows", [1, 2, 3, 16, 33])
@pytest.mark.parametrize("num_out", [16, 24, 160])
def test_product_of_packed_bytes_is_exact(num_rows: int, num_out: int) -> None:
    """Every row's sums as integers, also for the outputs of a block that is not full."""
    random = np.random.default_rng(num_rows)
    rows = random.integers(0, 256, (num_rows, 64), dtype=np.uint8)
    weight = random.integers(-127, 128, (num_out, 64), dtype=np.int8)
    memory = byte_blocks.huge_memory(byte_blocks.packed_bytes(num_out, 64))
    packed = byte_blocks.pack(torch.from_numpy(weight), memory)
    sums = np.zeros((len(packed), num_rows, 16), dtype=np.int32)

    for block, found in zip(packed, sums, strict=True):
        byte_products.multiply_rows(rows, block.ctypes.data, found)

    expected = rows.astype(np.int32) @ weight.T.astype(np.int32)
    together = np.concatenate(list(sums), axis=1)[:, :num_out]
    np.testing.assert_array_equal(together, expected)


def test_memory_comes_without_huge_pages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that knows no such advice refuses it; the memory is there all the same."""
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 9999, raising=False)

    memory = byte_blocks.huge_memory(100)
    assert (memory.shape, memory.any()) == ((100,), False)


@compiled
def count(_first, _last, counters, found):  # type: ignore[no-untyped-def]
    """In each phase, write what all items of the one before have left behind."""
    for phase in range(1, counters.shape[0]):
        item = turns.take(counters, phase)
        while item < found.shape[1]:
            found[phase, item] = found[phase - 1].sum() + 1
            turns.done(counters, phase)
            item = turns.take(counters, phase)
        turns.wait(counters, phase, found.shape[1])


@compiled
def count_together(threads, counters, found):  # type: ignore[no-untyped-def]
    spread(threads, threads[2], count, (counters, found))


@needs_byte_products
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_phase_begins_when_the_one_before_is_done(num_threads: int) -> None:
    """Each item sees all of the phase before, also with more threads than items or cores."""
    counters, found = turns.counters(20), np.zeros((20, 3), dtype=np.int64)

    count_together((*native.torch_threads()[:2], num_threads), counters, found)

    expected = [0]
    for _ in range(19):
        expected.append(3 * expected[-1] + 1)
    assert found.tolist() == [[number] * 3 for number in expected]


@dataclass
class Answers:
    """What an engine said to a few requests."""

    logits: list[torch.Tensor]
    tokens: list[list[int]]


def answer(num_requests: int, *, precision: str = "int8", num_threads: int = 2) -> Answers:
    """Run greedy requests over a packed model; keep each step's logits in the order of requests."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    model = tiny_models.build_llama()
    if precision == "int8":
        int8.quantize_linears(model, {})
    else:
        model = model.to(torch.bfloat16)
    config = EngineConfig(max_running=32, context_tokens=64, kv_memory_bytes=1 << 24)
    engine = Engine(model, tiny_models.ByteTokenizer(), config)
    found = Answers([], [[] for _ in range(num_requests)])
    run = engine._runner.run

    def noted(chunks):  # type: ignore[no-untyped-def]
        logits = run(chunks)
        found.logits.append(torch.cat([logits[str(i)] for i in range(num_requests)]))
        return logits

    engine._runner.run = noted  # type: ignore[method-assign]
    for i in range(num_requests):
        prompt = [65 + i, 66, 67 + i % 7]
        engine.submit(str(i), prompt, SamplingParams(max_tokens=6, ignore_eos=True))
    while engine.has_work():
        for output in engine.step():
            found.tokens[int(output.request_id)] += output.token_ids
    torch.set_num_threads(before)
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("num_requests", [1, 3, 17])
def test_step_is_what_product_by_product_computes(
    num_requests: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tokens, and logits within a hundredth of the largest: a value at a rounding step."""
    found = answer(num_requests, precision=precision)

    monkeypatch.setattr(decoder, "is_supported", lambda *_: False)
    expected = answer(num_requests, precision=precision)
    largest = float(torch.cat(expected.logits).abs().max())
    worst = max(
        float((a - b).abs().max()) for a, b in zip(found.logits, expected.logits, strict=True)
    )
    assert worst < 0.01 * largest
    assert found.tokens == expected.tokens


@needs_byte_products
@pytest.mark.skipif(
    not tile_registers.is_supported(tile_registers.BYTES), reason="the processor has no AMX int8"
)
def test_step_is_the_same_without_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: what runs on one processor, runs on another."""
    found = answer(17)

    monkeypatch.setattr(byte_products, "tiles", lambda _: np.empty(0, dtype=np.uint8))
    expected = answer(17)
    assert all(torch.equal(a, b) for a, b in zip(found.logits, expected.logits, strict=True))


@compiled
def note_all(logits, best):  # type: ignore[no-untyped-def]
    """Look at the columns by parts of 50."""
    for item in range(best.shape[0]):
        last = min(logits.shape[1], (item + 1) * 50)
        head_choice.note(logits, item * 50, last, best[item])


def test_likeliest_token_is_the_first_of_the_largest() -> None:
    """As torch has it, for negative numbers, equal ones, and both zeros."""
    random = np.random.default_rng(0)
    logits = random.normal(-3, 2, (40, 220)).astype(np.float32).round(1)
    logits[1], logits[2, ::2], logits[3, 7] = -5.5, -0.0, np.inf
    best = head_choice.build(5, 40)
    best.fill(head_choice.LEAST)

    note_all(logits, best)

    expected = torch.from_numpy(logits).argmax(dim=-1).tolist()
    assert head_choice.choose(best) == expected


@needs_byte_products
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_token_is_the_same_whoever_finds_it(penalty: float) -> None:
    """A request that asks for log-probabilities as well gets the tokens of one that does not."""
    params = SamplingParams(max_tokens=6, ignore_eos=True, repetition_penalty=penalty)

    found = generate(params)

    assert found == generate(replace(params, num_logprobs=2))


def generate(params: SamplingParams) -> list[int]:
    """Return what one request is answered."""
    model = tiny_models.build_llama()
    int8.quantize_linears(model, {})
    engine = Engine(model, tiny_models.ByteTokenizer(), EngineConfig(kv_memory_bytes=1 << 24))
    engine.submit("0", [65, 66, 67], params)
    found: list[int] = []
    while engine.has_work():
        found += [token for output in engine.step() for token in output.token_ids]
    return found


@needs_half_products
@pytest.mark.parametrize("num_requests", [1, 17])
def test_packed_halves_are_what_torch_multiplies(
    num_requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first logits of each are as far apart as rounding sums to bfloat16 moves them."""
    found = answer(num_requests, precision="bf16").logits[0]

    monkeypatch.setattr(half_blocks, "is_supported", lambda: False)
    expected = answer(num_requests, precision="bf16").logits[0]
    assert float((found - expected).abs().max()) < 0.03 * float(expected.abs().max())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_row_does_not_depend_on_batch_or_threads(precision: str) -> None:
    """The very same numbers for a request alone on one thread and beside others on two."""
    alone = answer(1, precision=precision, num_threads=1)

    together = answer(17, precision=precision)

    for own, shared in zip(alone.logits[1:], together.logits[1:], strict=True):
        assert torch.equal(own[0], shared[0])


@needs_byte_products
def test_cycles_are_noted_by_kind_of_phase() -> None:
    """A profile can say what a step's time went to."""
    model = tiny_models.build_llama()
    int8.quantize_linears(model, {})
    engine = Engine(model, tiny_models.ByteTokenizer(), EngineConfig(kv_memory_bytes=1 << 24))
    fused = engine._runner._fused
    assert fused is not None
    assert fused.decoder is not None

    spent = fused.decoder.spent_K

    assert [
        kind for kind, cycles in zip(decode_step.KINDS, spent, strict=True) if cycles <= 0
    ] == []
