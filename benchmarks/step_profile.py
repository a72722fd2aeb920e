"""Where the time of a step goes: `python benchmarks/step_profile.py`.

Processor time of one thread, which a busy machine disturbs little; with `--threads` wall time, which
is what a caller sees. Needs the embedded base model; adapters are random, rank 16 on all linears.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import environment  # noqa: F401 (before torch)
import parity_base
import random_adapters
import torch
from loraland_engine import row_kernels
from loraland_engine.decode_step import KINDS
from loraland_engine.decoder import Decoder
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.linear import Projection
from loraland_engine.sequence import SamplingParams

KERNELS = ("norm_rows", "finish_qkv", "attend_rows", "finish_residual", "finish_gate")
INPUT_TOKENS = 64
NUM_STEPS = 20


def time_calls(owner: Any, name: str, cost_s: dict[str, float], clock: Callable[[], float]) -> None:
    """Have each call of ``owner.name`` add its time to ``cost_s``."""
    call = getattr(owner, name)

    def timed(*args: Any, **options: Any) -> Any:
        start_s = clock()
        result = call(*args, **options)
        cost_s[name] += clock() - start_s
        return result

    setattr(owner, name, timed)


def profile(engine: Engine, case: str, cost_s: dict[str, float]) -> dict[str, float]:
    """Return milliseconds a decoding step by what they were spent on; the rest is ``other``."""
    num_requests, num_adapters = map(int, case.split("/"))
    for i in range(num_requests):
        prompt = torch.randint(0, 49_000, (INPUT_TOKENS,)).tolist()
        adapter = str(i % num_adapters) if num_adapters else ""
        params = SamplingParams(max_tokens=NUM_STEPS, ignore_eos=True)
        engine.submit(str(i), prompt, params, adapter_id=adapter)
    for _ in range(-(-num_requests * INPUT_TOKENS // engine.config.max_step_tokens)):
        engine.step()
    cost_s.clear()
    fused = engine._runner._fused
    before = fused.decoder.spent_K.copy() if fused is not None and fused.decoder else 0
    num_steps = 0
    while engine.has_work():
        engine.step()
        num_steps += 1
    found = {name: 1000 * spent / num_steps for name, spent in cost_s.items()}
    total = found.pop("step")
    if fused is not None and fused.decoder is not None:
        # What the compiled step knows of itself, in place of the one call that is seen from here.
        decode_ms, cycles = found.pop("run", 0.0), fused.decoder.spent_K - before
        shares = (cycles / max(1, cycles.sum())).tolist()
        found |= {f"step:{k}": decode_ms * s for k, s in zip(KINDS, shares, strict=True)}
    return found | {"other": total - sum(found.values()), "whole step": total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", default="int8", choices=["float32", "bf16", "int8"])
    parser.add_argument("--by-class", action="store_true", help="not through the fused pass")
    parser.add_argument("--threads", type=int, default=0, help="wall time on so many threads")
    parser.add_argument("--cases", nargs="+", default=["1/1", "16/0", "16/16"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads or 1)
    clock = time.perf_counter if options.threads else time.thread_time
    model = parity_base.load(options.precision)
    linears = random_adapters.find_linears(model)
    config = EngineConfig(
        max_running=32, context_tokens=512, num_slots=32, fused=not options.by_class
    )
    engine = Engine(model, parity_base.tokenizer(), config)
    cost_s: dict[str, float] = defaultdict(float)
    for kernel in KERNELS:
        time_calls(row_kernels, kernel, cost_s, clock)
    time_calls(Projection, "multiply", cost_s, clock)
    time_calls(Decoder, "run", cost_s, clock)
    time_calls(engine, "step", cost_s, clock)
    num_adapters = max(int(case.split("/")[1]) for case in options.cases)
    with tempfile.TemporaryDirectory() as name:
        folders = random_adapters.ensure_adapters(
            Path(name), linears, count=num_adapters, ranks=[16], base=parity_base.NAME
        )
        for index, folder in enumerate(folders):
            engine.insert_adapter(str(index), engine.read_adapter(folder))
        for case in options.cases:
            found = profile(engine, case, cost_s)
            parts = ", ".join(f"{part} {spent:.1f}" for part, spent in found.items())
            print(f"{case}: ms a step: {parts}", flush=True)


if __name__ == "__main__":
    main()
