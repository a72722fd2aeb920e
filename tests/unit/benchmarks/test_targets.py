"""Targets find their numbers in a document, and say whether they hold."""

from typing import Any

import pytest
import suite
import targets


def run(name: str, **more: Any) -> dict[str, Any]:
    known = {"name": name, "system": "engine", "precision": "int8", "against_this": None}
    return known | {"ratio": None, "memory": None} | more


def peer(name: str, num_adapters: int, rate: float) -> dict[str, Any]:
    found = {"system": targets.PEER, "name": name, "output_tokens_per_s": rate}
    return found | {"num_adapters": num_adapters}


def measured(runs: list[dict[str, Any]], peers: list[dict[str, Any]]) -> dict[str, Any]:
    rows = targets.compare(runs, peers)
    return {r["name"]: (r["measured"], r["verdict"]) for r in rows if r["measured"] is not None}


def test_throughput_is_compared_with_the_peers_on_the_same_work() -> None:
    """The base model's run takes turns with the adapters'; the peer ran both as well."""
    runs = [
        run(targets.MIXED, output_tokens_per_s=400.0, ratio=0.7),
        run(targets.MIXED, output_tokens_per_s=600.0, against_this="base"),
        run(targets.MIXED, output_tokens_per_s=90.0, precision="bf16"),
        run(targets.MIXED, output_tokens_per_s=100.0, precision="float32"),
    ]
    peers = [peer(targets.MIXED, 16, 50.0), peer(targets.MIXED, 0, 200.0)]

    assert measured(runs, peers) == {
        "16 requests, base, int8: times vLLM-CPU": (3.0, "aim"),
        "16 requests, 16 adapters, int8: times vLLM-CPU": (8.0, "aim"),
        "16 requests, 16 adapters, bf16 or float32: times vLLM-CPU": (2.0, "missed"),
        "16 requests, 16 adapters: of own base": (0.7, "must"),
    }


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(1.05, "aim"), (1.12, "must"), (1.2, "missed")],
    ids=["aim", "must", "missed"],
)
def test_costs_must_stay_below_their_limit(ratio: float, expected: str) -> None:
    """The service's processor time over the bare engine's is bounded from above."""
    found = measured([run(targets.MIXED, system="service", cpu_over_engine=ratio)], [])

    assert [verdict for _, verdict in found.values()] == [expected]


def test_every_piece_of_the_targets_is_in_the_suite() -> None:
    """A target whose piece nobody runs would never have a number."""
    names = {
        value for name, value in vars(targets).items() if name.isupper() and ", " in str(value)
    }

    assert {n for n in names if isinstance(n, str)} <= {piece.name for piece in suite.PIECES}
