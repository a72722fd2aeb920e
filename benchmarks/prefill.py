"""What prompts cost, and where the time goes: `python benchmarks/prefill.py`.

A case is REQUESTSxTOKENS/ADAPTERS: so many prompts at once, each answered with one token, on the base
model (0) or on so many random adapters of rank 16 on all linears. Wall time, the median of some runs in
turns. Needs the embedded base model.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import environment  # noqa: F401 (before torch)
import parity_base
import random_adapters
import torch
from loraland_engine import prompt_attention, row_kernels, tile_attention
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.linear import Projection
from loraland_engine.sequence import SamplingParams
from step_profile import KERNELS, time_calls

CASES = ("1x512/0", "1x512/1", "16x64/0", "16x64/16")


def profile(engine: Engine, case: str, cost_s: dict[str, float]) -> dict[str, float]:
    """Return milliseconds from the first step to the last token, by what they were spent on."""
    work, num_adapters = case.split("/")
    num_requests, num_tokens = map(int, work.split("x"))
    for i in range(num_requests):
        adapter = str(i % int(num_adapters)) if int(num_adapters) else ""
        prompt = torch.randint(0, 49_000, (num_tokens,)).tolist()
        params = SamplingParams(max_tokens=1, ignore_eos=True)
        engine.submit(str(i), prompt, params, adapter_id=adapter)
    cost_s.clear()
    while engine.has_work():
        engine.step()
    found = {name: 1000 * spent for name, spent in cost_s.items()}
    total = found.pop("step")
    return found | {"other": total - sum(found.values()), "whole": total}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", default="int8", choices=["float32", "bf16", "int8"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--step-tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cases", nargs="+", default=CASES)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    model = parity_base.load(options.precision)
    linears = random_adapters.find_linears(model)
    config = EngineConfig(
        max_running=32, num_slots=32, max_step_tokens=options.step_tokens, prefix_cache=False
    )
    engine = Engine(model, parity_base.tokenizer(), config)
    cost_s: dict[str, float] = defaultdict(float)
    for kernel in KERNELS:
        time_calls(row_kernels, kernel, cost_s, time.perf_counter)
    time_calls(prompt_attention, "attend_pieces", cost_s, time.perf_counter)
    time_calls(tile_attention, "attend_round", cost_s, time.perf_counter)
    time_calls(Projection, "multiply", cost_s, time.perf_counter)
    time_calls(engine, "step", cost_s, time.perf_counter)
    num_adapters = max(int(case.split("/")[1]) for case in options.cases)
    with tempfile.TemporaryDirectory() as name:
        folders = random_adapters.ensure_adapters(
            Path(name), linears, count=num_adapters, ranks=[16], base=parity_base.NAME
        )
        for index, folder in enumerate(folders):
            engine.insert_adapter(str(index), engine.read_adapter(folder))
        runs = [[profile(engine, c, cost_s) for c in options.cases] for _ in range(options.repeats)]
    for case, found in zip(options.cases, zip(*runs, strict=True), strict=True):
        median = sorted(found, key=lambda run: run["whole"])[len(found) // 2]
        parts = ", ".join(f"{part} {spent:.1f}" for part, spent in median.items())
        print(f"{case}: ms: {parts}", flush=True)


if __name__ == "__main__":
    main()
