"""What choosing the tokens of one step costs: 16 rows of a large vocabulary, by parameters.

No model; the logits are random and about as peaked as a language model's::

    python benchmarks/sampler.py
"""

import argparse
import statistics
import time
from typing import Any

import torch
from loraland_engine.sampler import sample
from loraland_engine.sequence import SamplingParams, Sequence

ROWS, VOCABULARY = 16, 49_152
CASES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 1.0},
    "top_p 0.9": {"temperature": 0.7, "top_p": 0.9},
    "top_p 0.95, flat": {"temperature": 3.0, "top_p": 0.95},
    "top_k 40, top_p 0.95": {"temperature": 1.0, "top_k": 40, "top_p": 0.95},
    "min_p 0.05": {"temperature": 1.0, "min_p": 0.05},
    "penalties, 2,000 tokens seen": {"repetition_penalty": 1.1, "presence_penalty": 0.1},
    "log-probabilities, top 5": {"num_logprobs": 5},
}


def median_ms(logits: torch.Tensor, params: dict[str, Any], *, repeats: int) -> float:
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(VOCABULARY, (ROWS, 2000), generator=generator).tolist()
    rows = [
        Sequence(str(i), prompt, SamplingParams(seed=i, **params), 0.0)
        for i, prompt in enumerate(prompts)
    ]
    times_s = []
    for _ in range(repeats):
        started_s = time.perf_counter()
        sample(logits, rows)
        times_s.append(time.perf_counter() - started_s)
    return 1000 * statistics.median(times_s[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    # The tail of a language model's distribution falls about like this.
    logits = 4 * torch.randn(ROWS, VOCABULARY)
    print(f"{ROWS} rows of {VOCABULARY}, {options.threads} threads, median ms a step")
    for name, params in CASES.items():
        print(f"{name:32} {median_ms(logits, params, repeats=options.repeats):7.2f}")


if __name__ == "__main__":
    main()
