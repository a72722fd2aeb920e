"""Who gets a slot and who gives way: the policy alone."""

import random

import pytest
from loraland_inference.adapters.slots import Slot, SlotTable


def build_table(*used: tuple[str, float, int], num_slots: int = 3) -> SlotTable:
    """Return a table with loaded artifacts, as (digest, last used, references)."""
    table = SlotTable(num_slots)
    for digest, last_used_s, references in used:
        slot = table.take(digest, last_used_s)
        slot.is_loaded, slot.references = True, references
    return table


def name(slot: Slot | None) -> str | None:
    return slot.digest if slot else None


@pytest.mark.parametrize(
    ("used", "pinned", "expected"),
    [
        ([("a", 1, 0), ("b", 2, 0)], set(), "a"),
        ([("a", 1, 1), ("b", 2, 0)], set(), "b"),
        ([("a", 1, 0), ("b", 2, 0)], {"a"}, "b"),
        ([("a", 1, 1), ("b", 2, 0)], {"b"}, None),
        ([], set(), None),
    ],
    ids=["least-recent", "in-use-stays", "pinned-stays", "nobody", "empty"],
)
def test_victim_is_the_unused_one_that_was_used_least_recently(
    used: list[tuple[str, float, int]], pinned: set[str], expected: str | None
) -> None:
    """What is in use or pinned never gives way."""
    table = build_table(*used)
    table.pinned = pinned

    assert name(table.victim(10.0)) == expected


def test_victim_is_never_one_that_is_still_loading() -> None:
    """A slot that is being filled belongs to those who wait for it."""
    table = SlotTable(1)
    table.take("a", 0.0)

    assert table.victim(10.0) is None


def test_drain_chooses_the_artifact_with_the_least_left_to_do() -> None:
    """Three requests that are nearly done end sooner than one that has just begun."""
    table = build_table(("many", 1, 3), ("one", 2, 1))
    for digest, num_tokens in (("many", 9), ("one", 500)):
        slot = table.find(digest)
        assert slot is not None
        slot.num_due_tokens = num_tokens

    assert name(table.start_drain()) == "many"


def test_drain_chooses_the_artifact_with_the_fewest_requests_once() -> None:
    """One artifact at a time gives way, and it goes first when it is unused."""
    table = build_table(("a", 1, 3), ("b", 9, 1), ("c", 0, 2))

    drained, second = table.start_drain(), table.start_drain()
    assert drained is not None
    table.release(drained, 10.0)

    assert (name(drained), second, name(table.victim(10.0))) == ("b", None, "b")


@pytest.mark.parametrize("seed", range(5))
def test_slots_keep_their_invariants_over_random_traces(seed: int) -> None:
    """Never more than there are, never a pinned or used one evicted."""
    rng = random.Random(seed)  # noqa: S311 (a trace, not a secret)
    table = SlotTable(4, pinned={"d0", "d1"})
    for now_s in range(500):
        digest = f"d{rng.randint(0, 9)}"
        slot = table.find(digest)
        if slot is None and table.num_free == 0:
            victim = table.victim(10.0)
            if victim is None:
                continue
            assert (victim.references, victim.digest in table.pinned) == (0, False)
            table.remove(victim)
        slot = slot or table.take(digest, now_s)
        slot.is_loaded = True
        slot.references += 1
        for other in [s for d in range(10) if (s := table.find(f"d{d}")) and s.references]:
            if rng.random() < 0.5:
                table.release(other, now_s)

        assert len(table.loaded) + table.num_free == 4
