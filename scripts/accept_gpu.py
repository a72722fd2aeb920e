"""Measures a release with many adapters, from outside: parity, load and the cliff beyond the slots.

``scripts/accept-gpu.sh`` publishes the adapters and runs this against the replica::

    python scripts/accept_gpu.py --address 127.0.0.1:8500 --adapters default/accept-{00..63} \
        --report accept-gpu.json

Parity is a request's log-probabilities alone against the same request among those of all the other
adapters: what batching costs in exactness. (Against PEFT itself: `make parity` on the same card.)
The cliff is the throughput over twice as many adapters as there are slots, against half as many.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loraland_client import Client

PROMPT = "Summarize in one sentence what a support desk for a shop does all day."
COMPLETION = " It answers questions about orders, returns, deliveries and broken goods."
# Sums in bf16 in another order; measured differences of a wrong adapter are tens.
MAX_LOGPROB_DIFFERENCE = 0.5
MIN_CLIFF_RATIO = 0.5
MAX_TTFT_P95_S = 10.0
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Load:
    """What one run came to."""

    num_adapters: int
    num_requests: int
    num_failed: int
    output_tokens_per_s: float
    # None where no request was answered.
    ttft_p50_s: float | None
    ttft_p95_s: float | None


async def measure_parity(client: Any, adapters: Sequence[str]) -> dict[str, Any]:
    """Score one completion with each adapter, alone and then all at once."""

    async def score(adapter: str) -> float:
        scores = await client.score(
            [COMPLETION], adapter=adapter, prompt=PROMPT, timeout_s=TIMEOUT_S
        )
        return float(scores[0].logprob)

    alone = [await score(adapter) for adapter in adapters]
    together = await asyncio.gather(*map(score, adapters))
    differences = [abs(a - b) for a, b in zip(alone, together, strict=True)]
    return {
        "numAdapters": len(adapters),
        "maxLogprobDifference": max(differences),
        # Adapters that all answer alike would be no adapters.
        "numDistinct": len({round(value, 4) for value in alone}),
        "isPassed": max(differences) <= MAX_LOGPROB_DIFFERENCE and len(set(alone)) > 1,
    }


async def measure_load(
    client: Any, adapters: Sequence[str], *, num_requests: int, concurrency: int, max_tokens: int
) -> Load:
    """Keep ``concurrency`` requests running, the adapters in turns."""
    waiting = iter(range(num_requests))
    ttfts: list[float] = []
    counts = {"tokens": 0, "failed": 0}

    async def work() -> None:
        for index in waiting:
            began, first = time.monotonic(), 0.0
            try:
                async for piece in client.stream(
                    adapter=adapters[index % len(adapters)],
                    prompt=f"{index}: {PROMPT}",
                    max_tokens=max_tokens,
                    ignore_eos=True,
                    timeout_s=TIMEOUT_S,
                ):
                    first = first or time.monotonic() - began
                    counts["tokens"] += len(piece.token_ids)
            except Exception as error:
                counts["failed"] += 1
                sys.stderr.write(f"{adapters[index % len(adapters)]}: {error}\n")
            else:
                ttfts.append(first)

    began = time.monotonic()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    lasted = time.monotonic() - began
    ttfts.sort()
    return Load(
        num_adapters=len(adapters),
        num_requests=num_requests,
        num_failed=counts["failed"],
        output_tokens_per_s=counts["tokens"] / lasted,
        ttft_p50_s=statistics.median(ttfts) if ttfts else None,
        ttft_p95_s=ttfts[int(0.95 * (len(ttfts) - 1))] if ttfts else None,
    )


async def measure(client: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Return the report; ``isPassed`` says whether all of it is within its limits."""
    adapters, slots = options.adapters, options.slots
    sizes = {
        "num_requests": options.requests,
        "concurrency": options.concurrency,
        "max_tokens": options.max_tokens,
    }
    parity = await measure_parity(client, adapters[: options.count])
    load = await measure_load(client, adapters[: options.count], **sizes)
    fitting = await measure_load(client, adapters[: max(1, slots // 2)], **sizes)
    beyond = await measure_load(client, adapters[: slots * 2], **sizes)
    ratio = beyond.output_tokens_per_s / (fitting.output_tokens_per_s or float("inf"))
    checks = {
        "parity": parity["isPassed"],
        "load": load.num_failed == 0 and (load.ttft_p95_s or 0.0) <= MAX_TTFT_P95_S,
        "cliff": fitting.num_failed == beyond.num_failed == 0 and ratio >= MIN_CLIFF_RATIO,
    }
    return {
        "schemaVersion": 1,
        "parity": parity,
        "load": asdict(load),
        "cliff": {"fitting": asdict(fitting), "beyond": asdict(beyond), "throughputRatio": ratio},
        "checks": checks,
        "isPassed": all(checks.values()),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Parity, load and cliff of a running release.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--adapters", nargs="+", required=True, help="namespace/name")
    parser.add_argument("--count", type=int, default=25, help="for parity and load")
    parser.add_argument("--slots", type=int, default=32, help="as the release has them")
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args(arguments)
    if len(options.adapters) < max(options.count, options.slots * 2):
        parser.error("the cliff wants twice as many adapters as there are slots")
    return options


async def main(options: argparse.Namespace) -> int:
    async with Client(options.address, os.environ["TOKEN"]) as client:
        report = await measure(client, options)
    options.report.write_text(json.dumps(report, indent=2) + "\n")
    sys.stdout.write(options.report.read_text())
    return 0 if report["isPassed"] else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parse())))
