"""What a benchmark asks for: requests with their adapters, tokens and times of arrival. No I/O."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

Distribution = Literal["distinct", "uniform", "skewed"]
# Below it are special tokens, and most vocabularies reach so far.
FIRST_TOKEN, LAST_TOKEN = 100, 40_000


@dataclass(frozen=True)
class Workload:
    """``rate`` is requests a second, arriving by themselves; None keeps ``concurrency`` in flight.

    ``burstiness`` is the coefficient of variation of the gaps between arrivals: 1 is Poisson.
    ``skew`` is the exponent of S-LoRA's power law: the smaller, the more goes to a few adapters.
    The first ``shared_tokens`` of all prompts are the same ones.
    """

    concurrency: int
    num_requests: int
    num_adapters: int
    input_tokens: int
    output_tokens: int
    distribution: Distribution = "distinct"
    rate: float | None = None
    burstiness: float = 1.0
    skew: float = 0.3
    seed: int = 0
    shared_tokens: int = 0

    def shortened(self, output_tokens: int) -> Self:
        """Return the same work with shorter answers, in a closed loop."""
        return replace(self, output_tokens=min(output_tokens, self.output_tokens), rate=None)


@dataclass(frozen=True)
class Request:
    """``adapter`` is an index, None the base model; ``arrival_s`` counts from the run's start."""

    index: int
    adapter: int | None
    token_ids: list[int]
    output_tokens: int
    arrival_s: float | None


def build_requests(workload: Workload, *, vocabulary_size: int, seed: int = 0) -> list[Request]:
    """Return the requests; the same workload and seed give the same ones."""
    generator = np.random.default_rng([workload.seed, seed])
    last = min(LAST_TOKEN, vocabulary_size)
    shape = (workload.num_requests, workload.input_tokens)
    token_ids = generator.integers(min(FIRST_TOKEN, last - 1), last, size=shape)
    token_ids[:, : workload.shared_tokens] = token_ids[0, : workload.shared_tokens]
    adapters = _adapters(workload, generator)
    arrivals = _arrivals(workload, generator)
    return [
        Request(i, adapters[i], token_ids[i].tolist(), workload.output_tokens, arrivals[i])
        for i in range(workload.num_requests)
    ]


def _adapters(workload: Workload, generator: np.random.Generator) -> list[int | None]:
    count, total = workload.num_requests, workload.num_adapters
    if not total:
        return [None] * count
    match workload.distribution:
        case "distinct":
            return [i % total for i in range(count)]
        case "uniform":
            return list(map(int, generator.integers(0, total, size=count)))
        case "skewed":
            # As in S-LoRA's traces (arXiv:2311.03285, benchmarks/trace.py).
            return list(map(int, generator.power(workload.skew, size=count) * total))


def _arrivals(workload: Workload, generator: np.random.Generator) -> list[float | None]:
    if workload.rate is None:
        return [None] * workload.num_requests
    shape = 1 / workload.burstiness**2
    gaps = generator.gamma(shape, 1 / (shape * workload.rate), size=workload.num_requests)
    return list(map(float, np.cumsum(gaps)))
