"""Pieces of prompts attend as plain attention over each sequence alone says, in float32."""

import numpy as np
import pytest
import torch
from loraland_engine import float_blocks, native, prompt_attention
from torch.nn import functional

SLOTS, CONTEXT = 3, 150
# First position and number of tokens of each piece; piece i is in slot i.
PIECES = [
    pytest.param([(0, 3)], id="three tokens"),
    pytest.param([(0, 64)], id="a block of keys"),
    pytest.param([(0, 150)], id="many blocks"),
    pytest.param([(7, 2), (0, 33), (64, 70)], id="pieces of three prompts"),
    pytest.param([(149, 1)], id="the last token that the context holds"),
]
# Query heads, key/value heads, head size.
HEADS = [
    pytest.param((9, 3, 64), id="groups of 3"),
    pytest.param((4, 4, 16), id="no groups"),
    pytest.param((8, 1, 20), id="one group, a size that blocks do not divide"),
]


def attend(
    pieces: list[tuple[int, int]], heads: tuple[int, int, int], num_threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the answers, and those of plain attention in float64."""
    num_heads, num_kv, size = heads
    random = np.random.default_rng(0)
    num_rows = sum(count for _, count in pieces)
    y = random.standard_normal((num_rows, (num_heads + 2 * num_kv) * size), dtype=np.float32)
    keys, values = random.standard_normal((2, SLOTS, num_kv, CONTEXT, size), dtype=np.float32)
    # What was left there by an earlier, longer sequence must not be read.
    for slot, (start, count) in enumerate(pieces):
        keys[slot, :, start + count :] = np.nan
    rows = np.cumsum([0, *(count for _, count in pieces)])
    places = [(int(rows[i]), start, count, i) for i, (start, count) in enumerate(pieces)]
    strips = prompt_attention.build_strips(places, group_size=num_heads // num_kv)
    found = np.zeros((num_rows, num_heads * size), dtype=np.float32)
    threads = native.torch_threads()[:2]

    prompt_attention.attend_pieces(
        (*threads, num_threads), y, strips, keys, values, np.float32(0.3), found
    )

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
        torch.tensor(t[:, :end]).double().repeat_interleave(num_heads // num_kv, dim=0)
        for t in (keys, values)
    )
    mask = torch.arange(end)[None, :] <= torch.arange(start, end)[:, None]
    out = functional.scaled_dot_product_attention(query.double(), k, v, attn_mask=mask, scale=0.3)
    answer: np.ndarray = out.transpose(0, 1).reshape(count, -1).numpy()
    return answer


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("pieces", PIECES)
def test_pieces_attend_like_each_sequence_alone(
    pieces: list[tuple[int, int]], heads: tuple[int, int, int]
) -> None:
    """For any pieces, groups and head sizes; float32, 1e-5 apart at most."""
    found, expected = attend(pieces, heads)

    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pieces_attend_alike_on_several_threads() -> None:
    """Who answers a strip changes nothing: not a bit."""
    pieces = [(7, 2), (0, 33), (64, 70)]

    alone, _ = attend(pieces, (9, 3, 64))
    together, _ = attend(pieces, (9, 3, 64), num_threads=3)

    np.testing.assert_array_equal(together, alone)


def test_large_scores_do_not_overflow() -> None:
    """Scores rise to 14,400 along the prompt, so each token answers with its own value."""
    num_tokens = 130
    y = np.full((num_tokens, 48), 30.0, dtype=np.float32)
    keys = np.linspace(-30, 30, num_tokens, dtype=np.float32)[None, None, :, None]
    keys = np.ascontiguousarray(np.broadcast_to(keys, (1, 1, num_tokens, 16)))
    values = np.ascontiguousarray(np.broadcast_to(keys, keys.shape))
    strips = prompt_attention.build_strips([(0, 0, num_tokens, 0)], group_size=1)
    found = np.zeros((num_tokens, 16), dtype=np.float32)

    prompt_attention.attend_pieces((0, 0, 1), y, strips, keys, values, np.float32(1.0), found)

    np.testing.assert_allclose(found, keys[0, 0], rtol=1e-5)


@pytest.mark.parametrize("group_size", [1, 3, 7])
def test_strips_cover_each_row_once(group_size: int) -> None:
    """Whatever the lengths; no strip has more tokens than its lanes hold."""
    pieces = [(2, 5, 100, 1), (102, 0, 1, 0), (103, 0, 63, 2)]

    strips = prompt_attention.build_strips(pieces, group_size=group_size)

    rows = sorted(r for first, count, _, _ in strips for r in range(first, first + count))
    assert rows == list(range(2, 166))
    assert max(strips[:, 1]) * group_size <= float_blocks.WIDTH
    assert all(row - start == {0: 102, 1: -3, 2: 103}[slot] for row, _, start, slot in strips)


def test_threads_that_halve_the_strips_have_as_much_to_read() -> None:
    """The sum of what a piece's strips read differs by one strip at most."""
    strips = prompt_attention.build_strips([(0, 0, 960, 0)], group_size=1)
    reads = [position + count for _, count, position, _ in strips]
    half = len(reads) // 2

    assert abs(sum(reads[:half]) - sum(reads[half:])) <= max(reads)
