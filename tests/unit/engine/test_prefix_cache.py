"""Beginnings of prompts by whose they are: keys, pins, and what gives way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loraland_engine.prefix_cache import PrefixCache
from loraland_engine.sequence import Caller, SamplingParams, Sequence

BLOCK = 4


def build_sequence(
    text: str, *, tenant: str = "t", adapter_id: str = "a", score_from: int | None = None
) -> Sequence:
    return Sequence(
        "r", [ord(c) for c in text], SamplingParams(), 0.0,
        caller=Caller(tenant), adapter_id=adapter_id, score_from=score_from,
    )  # fmt: skip


def build_cache(*kept: str, num_blocks: int = 8) -> PrefixCache:
    cache = PrefixCache(num_blocks=num_blocks, block_tokens=BLOCK)
    for text in kept:
        cache.keep(build_sequence(text), 0, len(text))
    return cache


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abcdefghi", 2), ("abcdefgh", 1), ("abcdxxxxx", 1), ("xbcdefghi", 0), ("abc", 0)],
    ids=["all", "one-token-is-left", "parts-ways", "other-first-token", "no-full-block"],
)
def test_claim_finds_the_longest_common_beginning(text: str, expected: int) -> None:
    """Full blocks only, and never all of a prompt: its last logits are wanted."""
    cache = build_cache("abcdefgh")

    assert len(cache.claim(build_sequence(text))) == expected


@pytest.mark.parametrize(
    "owner",
    [{"tenant": "other"}, {"adapter_id": "other"}, {"adapter_id": ""}, {"tenant": 't", "a'}],
    ids=["tenant", "adapter", "base", "quoting"],
)
def test_claim_finds_nothing_of_another_owner(owner: dict[str, str]) -> None:
    """The same tokens under another tenant or adapter are other keys and values."""
    cache = build_cache("abcdefgh")

    assert cache.claim(build_sequence("abcdefghi", **owner)) == []


def test_claim_leaves_what_is_scored() -> None:
    """The completion's logits are wanted, and those of the token before it."""
    cache = build_cache("abcdefghijkl")

    found = cache.claim(build_sequence("abcdefghijklm", score_from=8))

    assert len(found) == 1


def test_keep_returns_only_blocks_that_are_complete_and_new() -> None:
    """Pieces of a prompt: a block is kept with the piece that completes it."""
    cache = build_cache("abcdWXYZ")
    sequence = build_sequence("abcdefghijkl")

    pieces = [cache.keep(sequence, start, end) for start, end in [(0, 6), (6, 7), (7, 12)]]

    assert [[index for index, _ in piece] for piece in pieces] == [[], [], [1, 2]]


def test_keep_evicts_what_was_used_least_recently() -> None:
    """A claim is a use."""
    cache = build_cache("aaaa", "bbbb", num_blocks=2)
    used = build_sequence("aaaax")
    cache.unpin(used, len(cache.claim(used)))

    cache.keep(build_sequence("cccc"), 0, 4)

    found = [len(cache.claim(build_sequence(text))) for text in ("aaaax", "bbbbx", "ccccx")]
    assert found == [1, 0, 1]


def test_keep_takes_no_pinned_block_and_none_of_its_own_chain() -> None:
    """What is being copied stays, and a prompt longer than the cache keeps its beginning."""
    cache = build_cache("aaaa", num_blocks=2)
    cache.claim(build_sequence("aaaax"))

    new = cache.keep(build_sequence("bbbbccccdddd"), 0, 12)

    assert [index for index, _ in new] == [0]
    assert len(cache.claim(build_sequence("aaaax"))) == 1


def test_cache_without_blocks_keeps_nothing() -> None:
    """Switched off."""
    cache = build_cache("abcdefgh", num_blocks=0)

    assert cache.claim(build_sequence("abcdefghi")) == []
    assert cache.num_query_tokens == 0


TEXTS = st.text("ab", min_size=1, max_size=24)


@given(st.lists(st.tuples(TEXTS, st.sampled_from("tu"), st.booleans()), max_size=60))
def test_blocks_hold_what_their_keys_say_over_random_traces(
    moves: list[tuple[str, str, bool]],
) -> None:
    """A model of the memory: what is found holds the very tokens, of the very owner."""
    cache = PrefixCache(num_blocks=5, block_tokens=BLOCK)
    memory: dict[int, tuple[str, str]] = {}
    pinned: list[int] = []
    for text, tenant, stays_pinned in moves:
        sequence = build_sequence(text, tenant=tenant)
        found = cache.claim(sequence)
        assert len(found) * BLOCK < len(text)
        assert [memory[b] for b in found] == [
            (tenant, text[: (i + 1) * BLOCK]) for i in range(len(found))
        ]
        pinned += found
        for index, block in cache.keep(sequence, len(found) * BLOCK, len(text)):
            assert block not in pinned
            memory[block] = (tenant, text[: (index + 1) * BLOCK])
        if not stays_pinned:
            cache.unpin(sequence, len(found))
            for block in found:
                pinned.remove(block)
        assert cache.num_used <= 5
