"""What the adapter cache costs: time to first token from each tier, and the cliff beyond the slots.

    python benchmarks/cache.py --json cache.json --plot cache.png

A real replica over an S3 and a Redis of its own. Cold is the first request of an adapter, resident the
next one; host is asked for after its slot was given up, disk after the replica was started again: what
it finds there it hashes before it uses it. The tier is what the replica itself says right before the
request, and what lies on its disk. Then Zipf traffic over working sets of
0.5 to 8 times the slots, all of them on the node, in turns with one that just fits the slots; the
ratios are of neighbours in time. The client shares the machine, and so does S3: it is one hop away.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cache_report
import grpc
import measures
import numpy as np
import random_adapters
import replica
import served_model
from loraland_client import Client
from loraland_core.rpc import admin_pb2, admin_pb2_grpc, inference_pb2
from loraland_models import weights
from loraland_models.sources import ResolvedModel
from service import Service
from workload import Request

RATIOS = (0.5, 1.0, 2.0, 4.0, 8.0)
ALL_RESIDENT = 1.0
TIMEOUT_S = 120.0
# In the order of nearness; the base model has no adapter to fetch.
TIERS = ("base", "slot", "host", "disk", "absent")


class Asker:
    """Asks one request at a time and notes from which tier it was answered."""

    def __init__(self, started: replica.Replica, disk: Path, input_tokens: int) -> None:
        self._started = started
        self._disk = disk
        self._generator = np.random.default_rng(0)
        self._input_tokens = input_tokens
        self.rows: list[dict[str, Any]] = []

    async def ask(self, client: Client, adapter_id: str) -> None:
        tier = (await self.tiers(client))[adapter_id] if adapter_id else "base"
        token_ids = self._generator.integers(100, 1000, size=self._input_tokens).tolist()
        started_s = time.perf_counter()
        stream = client.stream(
            token_ids=token_ids, adapter=adapter_id, max_tokens=2, ignore_eos=True
        )
        first = await anext(stream)
        ttft_s = time.perf_counter() - started_s
        last = [first, *[piece async for piece in stream]][-1]
        self.rows.append(
            {
                "adapter": adapter_id,
                "tier": tier,
                "ttft_s": ttft_s,
                "adapter_load_s": last.adapter_load_s,
            }
        )

    async def tiers(self, client: Client) -> dict[str, str]:
        """Return where each adapter is."""
        return {a.adapter: self._tier(a) for a in await client.list_adapters()}

    def _tier(self, adapter: inference_pb2.AdapterInfo) -> str:
        if adapter.tier == inference_pb2.TIER_ABSENT and (self._disk / adapter.digest).is_dir():
            # Left by the replica before it, and not looked at yet.
            return "disk"
        return inference_pb2.Tier.Name(adapter.tier).removeprefix("TIER_").lower()

    async def evict(self, adapter_id: str) -> None:
        """Let the replica give up the adapter's slot."""
        metadata = (("authorization", f"Bearer {self._started.token}"),)
        request = admin_pb2.EvictAdapterRequest(adapter=adapter_id)
        async with grpc.aio.insecure_channel(self._started.address) as channel:
            stub = admin_pb2_grpc.AdminStub(channel)
            await stub.EvictAdapter(request, metadata=metadata, timeout=TIMEOUT_S)


async def measure_tiers(
    started: replica.Replica, *, disk: Path, input_tokens: int, count: int, is_fresh: bool
) -> list[dict[str, Any]]:
    """Ask ``count`` adapters: once where they are, then from the slot, then from memory."""
    asker = Asker(started, disk, input_tokens)
    async with Client(started.address, started.token, timeout_s=TIMEOUT_S) as client:
        await client.generate(token_ids=[1, 2, 3], max_tokens=4)
        for adapter_id in started.adapter_ids[:count]:
            await asker.ask(client, "")
            await asker.ask(client, adapter_id)
            if is_fresh:
                await asker.ask(client, adapter_id)
                await asker.evict(adapter_id)
                await asker.ask(client, adapter_id)
    return asker.rows


def measure_cliff(
    started: replica.Replica, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], float]:
    """Return each run, and the throughput at 8 times the slots over that of what fits them."""
    service = Service(started.address, started.token, started.adapter_ids, started.cpu_s)
    runs: list[dict[str, Any]] = []
    rates: dict[float, list[float]] = {ratio: [] for ratio in RATIOS}
    for repeat in range(arguments.repeats):
        for ratio in RATIOS:
            count = max(1, int(ratio * arguments.slots))
            requests = zipf_requests(arguments, count, seed=repeat)
            # Everything is on the node before it counts: what is measured is the slots.
            service.warm_up(requests)
            run = service.run(requests, concurrency=arguments.concurrency)
            num_tokens = sum(row.output_tokens for row in run.rows)
            rates[ratio].append(num_tokens / run.wall_s)
            runs.append(
                {
                    "ratio": ratio,
                    "adapters": count,
                    "repeat": repeat,
                    "output_tokens_per_s": num_tokens / run.wall_s,
                    "hit_rate": measures.hit_rate(run.rows),
                    "ttft_percentiles_s": measures.percentiles([r.ttft_s for r in run.rows]),
                    "rows": [row.to_json() for row in run.rows],
                }
            )
    pairs = zip(rates[RATIOS[-1]], rates[ALL_RESIDENT], strict=True)
    return runs, statistics.median(cliff / resident for cliff, resident in pairs)


def zipf_requests(arguments: argparse.Namespace, num_adapters: int, *, seed: int) -> list[Request]:
    """Return requests whose adapter of rank k comes with a probability proportional to 1/k."""
    generator = np.random.default_rng([seed, num_adapters])
    shares = 1 / np.arange(1, num_adapters + 1) ** arguments.zipf
    adapters = generator.choice(num_adapters, size=arguments.requests, p=shares / shares.sum())
    tokens = generator.integers(100, 1000, size=(arguments.requests, arguments.input_tokens))
    return [
        Request(i, int(adapter), tokens[i].tolist(), arguments.output_tokens, None)
        for i, adapter in enumerate(adapters)
    ]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    model = served_model.resolve(arguments)
    with tempfile.TemporaryDirectory(prefix="loraland-cache-") as name:
        folder = Path(name)
        folders = random_adapters.ensure_adapters(
            arguments.adapters_dir or folder / "adapters",
            lambda: random_adapters.find_linears(_load(model)),
            count=int(arguments.slots * RATIOS[-1]),
            ranks=[arguments.rank],
            base=str(model.directory),
        )
        options: dict[str, Any] = {
            "folder": folder,
            "num_slots": arguments.slots,
            "max_running": arguments.concurrency,
            "threads": arguments.threads,
            "prefix_cache": False,
        }
        told: dict[str, Any] = {
            "disk": folder / "cache" / "adapters",
            "input_tokens": arguments.input_tokens,
            "count": arguments.samples,
        }
        with replica.running(model, folders, **options) as started:
            rows = asyncio.run(measure_tiers(started, is_fresh=True, **told))
        # Its host tier ends with a replica; its disk does not.
        with replica.running(model, folders, **options) as started:
            rows += asyncio.run(measure_tiers(started, is_fresh=False, **told))
            runs, ratio = measure_cliff(started, arguments)
    return {
        "schemaVersion": 1,
        "machine": {"num_cores": os.cpu_count(), "processor": platform.processor()},
        "settings": {k: v for k, v in vars(arguments).items() if isinstance(v, int | float | str)},
        "throughput_ratio_at_8x_slots": ratio,
        "ttft_percentiles_s": {
            tier: measures.percentiles([r["ttft_s"] for r in rows if r["tier"] == tier])
            for tier in TIERS
        },
        "tiers": rows,
        "cliff": runs,
    }


def _load(model: ResolvedModel) -> Any:
    return weights.load_model(model, weights.serving_precision(model.entry))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-model", default=served_model.EMBEDDED, help="folder or name")
    parser.add_argument("--catalogue", type=Path)
    parser.add_argument("--precision", default="int8", choices=sorted(served_model.PRECISIONS))
    parser.add_argument("--adapters-dir", type=Path, help="where adapters are kept between runs")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--samples", type=int, default=12, help="adapters asked from each tier")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--requests", type=int, default=48, help="of one run")
    parser.add_argument("--input-tokens", type=int, default=32)
    parser.add_argument("--output-tokens", type=int, default=24)
    parser.add_argument("--zipf", type=float, default=1.0, help="exponent of the skew")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    document = measure(arguments)
    cache_report.print_table(document)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.plot:
        cache_report.write_plot(document, arguments.plot)


if __name__ == "__main__":
    main()
