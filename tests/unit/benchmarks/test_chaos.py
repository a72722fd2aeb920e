"""What the chaos run takes for a violation: a check that finds nothing wrong with anything is none."""

import functools
import random
import time
from dataclasses import replace
from typing import Any

import pytest
from chaos_faults import Faults
from chaos_load import LAG_S, Load, Outcome
from chaos_world import Adapter


class FakeManifest:
    def __init__(self, digest: str) -> None:
        self.digest = digest


class FakeWorld:
    def __init__(self) -> None:
        manifests: Any = [FakeManifest("old"), FakeManifest("new")]
        self.adapters = [Adapter("ns/a", manifests)]


GOOD = Outcome("ns/a", "OK", "new", (1, 2, 3, 4), num_ends=1)


def judge(outcome: Outcome, *, current: int = 1, changed_s: float = 0.0) -> list[str]:
    world = FakeWorld()
    world.adapters[0].current, world.adapters[0].changed_s = current, changed_s
    load = Load(world, 0)  # type: ignore[arg-type]
    load._known = {("new", "x"): (1, 2, 3, 4, 5), ("old", "x"): (9, 9)}
    load._check(outcome, world.adapters[0], time.monotonic())
    if outcome.code == "OK" and not load.violations:
        load._check_answer(outcome, "x", 4)
    return load.violations


@pytest.mark.parametrize(
    "outcome",
    [
        replace(GOOD, digest="another's"),
        replace(GOOD, num_ends=2),
        replace(GOOD, num_ends=0),
        replace(GOOD, token_ids=(1, 2, 3)),
        replace(GOOD, token_ids=(1, 2, 3, 5)),
        replace(GOOD, digest="old"),
        Outcome("ns/a", "NONE"),
        Outcome("ns/a", "INTERNAL"),
        Outcome("ns/a", "FAILED_PRECONDITION"),
        Outcome("ns/a", "NOT_FOUND"),
    ],
    ids=[
        "digest of another", "two ends", "no end", "too short", "wrong token",
        "answer of another version", "none", "our mistake", "refused", "not found",
    ],
)  # fmt: skip
def test_wrong_outcome_is_a_violation(outcome: Outcome) -> None:
    """The adapter and the outcome are named."""
    found = judge(outcome)

    assert found
    assert all(text.startswith(f"ns/a {outcome.digest} {outcome.code}: ") for text in found)


@pytest.mark.parametrize(
    ("outcome", "changes"),
    [
        (GOOD, {}),
        (replace(GOOD, digest="old", token_ids=(9, 9, 7, 7)), {}),
        (Outcome("ns/a", "UNAVAILABLE"), {}),
        (Outcome("ns/a", "NOT_FOUND"), {"current": -1}),
        (Outcome("ns/a", "NOT_FOUND"), {"changed_s": time.monotonic() + LAG_S}),
    ],
    ids=["right", "right as far as it is known", "away", "disabled", "just enabled"],
)
def test_outcome_that_a_fault_excuses_is_none(outcome: Outcome, changes: dict[str, Any]) -> None:
    """What breaks may be told; it may not be told wrongly."""
    assert judge(outcome, **changes) == []


def test_faults_come_all_and_in_the_order_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short the run: every sort once, the same ones for the same seed."""
    orders = []
    for seed in (1, 1, 2):
        world: Any = FakeWorld()
        faults = Faults(world, random.Random(seed))  # noqa: S311 (not for secrets)
        order: list[str] = []
        faults._all = {name: functools.partial(order.append, name) for name in faults._all}
        monkeypatch.setattr(faults, "_pause", lambda *_: None)
        faults.run(0.0)
        orders.append(order)

    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(set(orders[0]))
