"""Pieces of prompts attend in tiles as plain attention over rounded numbers says."""

import numpy as np
import pytest
import torch
from loraland_engine import kv_memory, native, tile_attention
from torch.nn import functional

pytestmark = pytest.mark.skipif(
    not tile_attention.IS_SUPPORTED, reason="the processor has no AMX for bfloat16"
)
SLOTS, CONTEXT, SCALING = 3, 150, 0.3
# First position and number of tokens of each piece; piece i is in slot i.
PIECES = [
    pytest.param([(0, 3)], id="three tokens"),
    pytest.param([(0, 64)], id="whole blocks"),
    pytest.param([(0, 150)], id="many blocks"),
    pytest.param([(7, 2), (0, 33), (64, 70)], id="pieces of three prompts"),
    pytest.param([(149, 1)], id="the last token that the context holds"),
]
# Query heads, key/value heads, head size.
HEADS = [
    pytest.param((9, 3, 64), id="groups of 3"),
    pytest.param((4, 4, 32), id="no groups"),
    pytest.param((7, 1, 96), id="one group of 7"),
]


def attend(
    pieces: list[tuple[int, int]],
    heads: tuple[int, int, int],
    num_threads: int = 1,
    *,
    is_half: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the answers, and those of plain attention in float64; memory may be in halves."""
    num_heads, num_kv, size = heads
    random = np.random.default_rng(0)
    num_rows = sum(count for _, count in pieces)
    y = random.standard_normal((num_rows, (num_heads + 2 * num_kv) * size), dtype=np.float32)
    keys, values = random.standard_normal((2, SLOTS, num_kv, CONTEXT, size), dtype=np.float32)
    # What was left there by an earlier, longer sequence must not be read.
    for slot, (start, count) in enumerate(pieces):
        keys[slot, :, start + count :] = values[slot, :, start + count :] = np.nan
    kept = [
        kv_memory.as_array(torch.tensor(t).to(torch.bfloat16 if is_half else torch.float32))
        for t in (keys, values)
    ]
    rows = np.cumsum([0, *(count for _, count in pieces)])
    places = [(int(rows[i]), start, count, i) for i, (start, count) in enumerate(pieces)]
    attention = tile_attention.Attention(
        num_kv=num_kv, head_size=size, group_size=num_heads // num_kv, scaling=SCALING
    )
    found = np.zeros((num_rows, num_heads * size), dtype=np.float32)
    threads = (*native.torch_threads()[:2], num_threads)

    attention.attend(threads, attention.plan(places), y, *kept, found)

    parts = [_plain(y[row : row + count], keys[slot], values[slot], start, heads)
             for row, start, count, slot in places]  # fmt: skip
    return found, np.concatenate(parts)


def _plain(
    y: np.ndarray, keys: np.ndarray, values: np.ndarray, start: int, heads: tuple[int, int, int]
) -> np.ndarray:
    num_heads, num_kv, size = heads
    count, end = len(y), start + len(y)
    query = torch.tensor(y[:, : num_heads * size]).view(count, num_heads, size).transpose(0, 1)
    k, v = (
        torch.tensor(t[:, :end]).bfloat16().double().repeat_interleave(num_heads // num_kv, dim=0)
        for t in (keys, values)
    )
    mask = torch.arange(end)[None, :] <= torch.arange(start, end)[:, None]
    out = functional.scaled_dot_product_attention(
        query.double(), k, v, attn_mask=mask, scale=SCALING
    )
    answer: np.ndarray = out.transpose(0, 1).reshape(count, -1).numpy()
    return answer


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("pieces", PIECES)
def test_pieces_attend_like_each_sequence_alone(
    pieces: list[tuple[int, int]], heads: tuple[int, int, int]
) -> None:
    """For any pieces, groups and head sizes; queries and weights are rounded: 2 % apart at most."""
    found, expected = attend(pieces, heads)

    np.testing.assert_allclose(found, expected, atol=0.02)


def test_memory_may_be_in_halves() -> None:
    """They are what float32 is rounded to: not a bit differs."""
    pieces = [(7, 2), (0, 33), (64, 70)]

    whole, _ = attend(pieces, (9, 3, 64))
    half, _ = attend(pieces, (9, 3, 64), is_half=True)

    np.testing.assert_array_equal(half, whole)


def test_pieces_attend_alike_on_several_threads() -> None:
    """Who answers a strip changes nothing: not a bit."""
    pieces = [(7, 2), (0, 33), (64, 70)]

    alone, _ = attend(pieces, (9, 3, 64))
    together, _ = attend(pieces, (9, 3, 64), num_threads=3)

    np.testing.assert_array_equal(together, alone)


def test_pieces_that_are_many_take_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is laid out stays small, and nobody's answers change: not a bit."""
    pieces = [(7, 2), (0, 33), (64, 70)]
    together, _ = attend(pieces, (9, 3, 64))
    monkeypatch.setattr(tile_attention, "ROUND_BYTES", 20_000)

    apart, _ = attend(pieces, (9, 3, 64))

    np.testing.assert_array_equal(apart, together)


def test_rounds_cover_each_row_and_each_key_once() -> None:
    """Every token in one strip, every key block of its piece laid out where the strip looks."""
    pieces = [(2, 5, 100, 1), (102, 0, 1, 0), (103, 0, 63, 2)]

    (found,) = tile_attention.build_rounds(pieces, group_size=3, head_size=64)

    rows = sorted(r for first, count, *_ in found.strip_I5 for r in range(first, first + count))
    assert rows == list(range(2, 166))
    assert found.block_J5[:, :3].tolist() == [
        *([1, key, 105] for key in (0, 32, 64, 96)), [0, 0, 1], [2, 0, 63], [2, 32, 63],
    ]  # fmt: skip
    assert set(map(tuple, found.strip_I5[:, 3:])) == set(map(tuple, found.block_J5[:, 3:]))
    assert found.num_halves == 2 * 64 * (128 + 32 + 64)


def test_large_scores_do_not_overflow() -> None:
    """Scores rise to 14,400 along the prompt, so each token answers with its own value."""
    num_tokens = 130
    y = np.full((num_tokens, 96), 30.0, dtype=np.float32)
    keys = np.linspace(-30, 30, num_tokens, dtype=np.float32)[None, None, :, None]
    keys = np.ascontiguousarray(np.broadcast_to(keys, (1, 1, num_tokens, 32)))
    attention = tile_attention.Attention(num_kv=1, head_size=32, group_size=1, scaling=1.0)
    found = np.zeros((num_tokens, 32), dtype=np.float32)

    attention.attend(
        (0, 0, 1), attention.plan([(0, 0, num_tokens, 0)]), y, keys, keys.copy(), found
    )

    np.testing.assert_allclose(found, keys[0, 0], atol=0.3)
