"""Everything that wants a card, in one command: parity, throughput, adapter loads, memory.

    python benchmarks/gpu.py --base-model FOLDER --precision bf16 --report gpu.json

On a machine without an NVIDIA GPU it says so and ends with status 2.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measures
import random_adapters
import served_model
import torch
from bare_engine import BareEngine
from loraland_engine import lora_grouped, lora_segments
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.lora import LoraWeights
from loraland_engine.sequence import NO_ADAPTER, SamplingParams
from loraland_models import weights
from torch import Tensor
from workload import Workload, build_requests

NO_CARD = 2
NUM_ADAPTERS = (0, 1, 8, 32, 100)
SLO = measures.Slo(ttft_s=1.0, tpot_s=0.05)
# bf16 keeps 8 bits; sums over the rank and the width add to that.
KERNEL_LIMIT = 2e-2
NUM_PARITY_TOKENS = 32


def measure_kernels(device: torch.device) -> list[dict[str, Any]]:
    """Compare both ways to add adapters with plain float32 products, and time them."""
    from loraland_engine import lora_triton  # noqa: PLC0415 (it wants the Triton of a GPU's torch)

    found = []
    for num_rows, num_adapters in ((1, 1), (32, 1), (32, 8), (32, 32), (128, 100), (2048, 8)):
        made = {s: _random(16 if s % 2 else 64, 4096, 4096, device) for s in range(num_adapters)}
        owners = [t % num_adapters if t % 7 != 6 else NO_ADAPTER for t in range(num_rows)]
        x = torch.randn(num_rows, 4096, device=device, dtype=torch.bfloat16)
        expected = _plain(x, owners, made)
        segments = lora_segments.Segments(max_tokens=num_rows, device=device)
        segments.update(owners)
        table = torch.tensor(
            [[w.a_RD.data_ptr(), w.b_RO.data_ptr(), len(w.a_RD)] for w in made.values()],
            device=device,
        ).t().contiguous()  # fmt: skip
        groups = [
            lora_grouped.build_group(owners, members, device)
            for members in (
                {s: w for s, w in made.items() if len(w.a_RD) == rank} for rank in (16, 64)
            )
            if any(owner in members for owner in owners)
        ]

        def by_triton(y: Tensor, x: Tensor = x, table: Tensor = table, s: Any = segments) -> None:
            lora_triton.add_lora(y, x, table, s, max_rank=64)

        def by_groups(y: Tensor, x: Tensor = x, groups: Any = groups) -> None:
            for group in groups:
                lora_grouped.add_group(y, x, group)

        for name, add in (("triton", by_triton), ("grouped_mm", by_groups)):
            y = torch.zeros_like(x)
            add(y)
            error = ((y.float() - expected).abs().max() / expected.abs().max()).item()
            numbers = {"rows": num_rows, "adapters": num_adapters, "ms": _time_ms(add, y)}
            limits = {"relative_error": error, "limit": KERNEL_LIMIT}
            found.append({"kernel": name} | numbers | limits)
    return found


def _random(rank: int, num_in: int, num_out: int, device: torch.device) -> LoraWeights:
    a = torch.randn(rank, num_in, device=device) / num_in**0.5
    b = torch.randn(rank, num_out, device=device) / rank**0.5
    return LoraWeights(a.bfloat16(), b.bfloat16())


def _plain(x: Tensor, owners: list[int], made: dict[int, LoraWeights]) -> Tensor:
    y = torch.zeros(x.shape, device=x.device)
    for slot, w in made.items():
        rows = [t for t, owner in enumerate(owners) if owner == slot]
        y[rows] = x[rows].float() @ w.a_RD.float().t() @ w.b_RO.float()
    return y


def _time_ms(add: Any, y: Tensor, repeats: int = 50) -> float:
    for _ in range(5):
        add(y)
    torch.cuda.synchronize()
    start_s = time.perf_counter()
    for _ in range(repeats):
        add(y)
    torch.cuda.synchronize()
    return (time.perf_counter() - start_s) / repeats * 1e3


def measure_parity(engine: Engine, folders: list[Path]) -> dict[str, Any]:
    """Compare each request's tokens in a mixed batch with its tokens alone."""
    work = Workload(len(folders), len(folders), len(folders), 64, NUM_PARITY_TOKENS)
    requests = build_requests(work, vocabulary_size=engine.vocabulary_size)
    for index, folder in enumerate(folders):
        engine.insert_adapter(str(index), engine.read_adapter(folder))
    params = SamplingParams(max_tokens=NUM_PARITY_TOKENS, ignore_eos=True)
    together = _generate(engine, requests, params)
    alone: dict[str, list[int]] = {}
    for request in requests:
        alone |= _generate(engine, [request], params)
    for index in range(len(folders)):
        engine.remove_adapter(str(index))
    equal = [together[i] == alone[i] for i in alone]
    # Greedy choices may part where two logits are as good as equal; the first token rarely.
    firsts = [together[i][0] == alone[i][0] for i in alone]
    return {"requests": len(equal), "equal": sum(equal), "first_token_equal": sum(firsts)}


def _generate(engine: Engine, requests: list[Any], params: SamplingParams) -> dict[str, list[int]]:
    for r in requests:
        engine.submit(str(r.index), r.token_ids, params, adapter_id=str(r.adapter))
    found: dict[str, list[int]] = {str(r.index): [] for r in requests}
    while engine.has_work():
        for output in engine.step():
            found[output.request_id] += output.token_ids
    return found


def measure_loads(engine: Engine, folders: list[Path]) -> dict[str, float]:
    """Time reading an adapter to the device, and putting it into a slot between two steps."""
    reads, inserts = [], []
    for folder in folders:
        start_s = time.perf_counter()
        adapter = engine.read_adapter(folder)
        torch.cuda.synchronize()
        read_s = time.perf_counter()
        engine.insert_adapter("measured", adapter)
        torch.cuda.synchronize()
        reads.append((read_s - start_s) * 1e3)
        inserts.append((time.perf_counter() - read_s) * 1e3)
        engine.remove_adapter("measured")
    return {"read_ms": statistics.median(reads), "insert_ms": statistics.median(inserts)}


def measure_throughput(
    engine: Engine, folders: list[Path], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return throughput by number of adapters, each beside the base model on the same engine."""
    target = BareEngine(engine, folders, root=folders[0].parent)
    found = []
    for num_adapters in NUM_ADAPTERS:
        count = arguments.concurrency
        numbers = {"input_tokens": arguments.input_tokens, "output_tokens": arguments.output_tokens}
        work = Workload(count, 2 * count, num_adapters, distribution="uniform", **numbers)
        base = Workload(count, 2 * count, 0, **numbers)
        target.warm_up(build_requests(work, vocabulary_size=engine.vocabulary_size))
        rates: dict[str, list[float]] = {"own": [], "base": []}
        for repeat in range(arguments.repeats + 1):
            for name, workload in (("base", base), ("own", work)):
                requests = build_requests(
                    workload, vocabulary_size=engine.vocabulary_size, seed=repeat
                )
                summary = measures.summarize(target.run(requests, concurrency=count), SLO)
                # The first turn warms up.
                if repeat:
                    rates[name].append(summary["output_tokens_per_s"])
        own, plain = (statistics.median(rates[name]) for name in ("own", "base"))
        found.append(
            {"adapters": num_adapters, "output_tokens_per_s": own, "ratio_to_base": own / plain}
        )
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    device = torch.device("cuda")
    model = served_model.resolve(arguments)
    loaded = weights.load_model(model, weights.serving_precision(model.entry), device="cuda")
    weights_bytes = torch.cuda.memory_allocated()
    with tempfile.TemporaryDirectory(prefix="loraland-gpu-") as name:
        folders = random_adapters.ensure_adapters(
            Path(name),
            random_adapters.find_linears(loaded),
            count=max(NUM_ADAPTERS),
            ranks=[16, 8, 32, 64],
            base=str(model.directory),
        )
        config = EngineConfig(
            max_running=arguments.concurrency,
            max_step_tokens=2048,
            num_slots=max(NUM_ADAPTERS),
            context_tokens=1024,
        )
        engine = Engine(loaded, weights.load_tokenizer(model), config)
        return {
            "schemaVersion": 1,
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "base_model": arguments.base_model,
            "precision": arguments.precision,
            "kernels": measure_kernels(device),
            "parity": measure_parity(engine, folders[:16]),
            "loads": measure_loads(engine, folders[:16]),
            "throughput": measure_throughput(engine, folders, arguments),
            "memory": {
                "weights_bytes": weights_bytes,
                "peak_bytes": torch.cuda.max_memory_allocated(),
            },
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-model", default=served_model.EMBEDDED, help="folder or name")
    parser.add_argument("--catalogue", type=Path)
    parser.add_argument("--precision", choices=("bf16", "fp16", "nf4-bf16"), default="bf16")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--input-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--report", type=Path, help="JSON file")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no NVIDIA GPU here (torch.cuda.is_available() is false): nothing was measured")
        sys.exit(NO_CARD)
    document = measure(arguments)
    text = json.dumps(document, indent=2)
    print(text)
    if arguments.report:
        arguments.report.write_text(text + "\n")
    failed = [k for k in document["kernels"] if k["relative_error"] > k["limit"]]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
