"""What packing an adapter once saves: `python benchmarks/packing.py`.

Milliseconds to read PEFT's files, to pack them, to map the packed file, and of a decoding step over
adapters that were read and over ones that are mapped. Needs the embedded base model; adapters are
random, rank 16 on all linears.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import environment  # noqa: F401 (before torch)
import parity_base
import random_adapters
import torch
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.sequence import SamplingParams

NUM_ADAPTERS = 8
NUM_STEPS = 40
ROUNDS = 3


def median_ms(work: Callable[[int], Any]) -> float:
    """Return the median over all adapters, one by one."""
    spent_s = []
    for index in range(NUM_ADAPTERS):
        started_s = time.perf_counter()
        work(index)
        spent_s.append(time.perf_counter() - started_s)
    return 1000 * statistics.median(spent_s)


def step_ms(engine: Engine, prefix: str) -> float:
    """Return the median decoding step of a batch in which each row has its own adapter."""
    params = SamplingParams(max_tokens=NUM_STEPS, ignore_eos=True)
    for index in range(NUM_ADAPTERS):
        engine.submit(str(index), [5, 6, 7], params, adapter_id=f"{prefix}{index}")
    spent_s = []
    while engine.has_work():
        started_s = time.perf_counter()
        engine.step()
        spent_s.append(time.perf_counter() - started_s)
    return 1000 * statistics.median(spent_s)


def measure(folder: Path, precision: str) -> dict[str, float]:
    model = parity_base.load(precision)
    linears = random_adapters.find_linears(model)
    config = EngineConfig(max_running=16, context_tokens=256, num_slots=2 * NUM_ADAPTERS)
    engine = Engine(model, parity_base.tokenizer(), config)
    sources = random_adapters.ensure_adapters(
        folder, linears, count=NUM_ADAPTERS, ranks=[16], base=parity_base.NAME
    )
    packed = [folder / f"{index}.packed" for index in range(NUM_ADAPTERS)]
    reader = engine.adapters
    found = {
        "read_ms": median_ms(lambda i: reader.read(sources[i])),
        "pack_ms": median_ms(lambda i: reader.pack(sources[i], packed[i])),
        "map_ms": median_ms(lambda i: reader.read_packed(packed[i])),
        "peft_mib": (sources[0] / "adapter_model.safetensors").stat().st_size / 2**20,
        "packed_mib": packed[0].stat().st_size / 2**20,
    }
    for index in range(NUM_ADAPTERS):
        engine.insert_adapter(f"read{index}", reader.read(sources[index]))
        engine.insert_adapter(f"map{index}", reader.read_packed(packed[index]))
    rounds = [(step_ms(engine, "read"), step_ms(engine, "map")) for _ in range(ROUNDS)]
    found["step_over_read_ms"] = statistics.median(r[0] for r in rounds)
    found["step_over_mapped_ms"] = statistics.median(r[1] for r in rounds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", default="int8", choices=["float32", "bf16", "int8"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), options.precision)
    for key, value in found.items():
        print(f"{key}: {value:.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
