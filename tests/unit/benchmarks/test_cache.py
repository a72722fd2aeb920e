"""What the cache benchmark asks for."""

import argparse
from collections import Counter

import cache
import pytest

ARGUMENTS = argparse.Namespace(requests=4000, input_tokens=3, output_tokens=5, zipf=1.0)


def test_zipf_requests_are_skewed_and_reproducible() -> None:
    """The first of eight comes with 1 / (1 + 1/2 + … + 1/8), the second half as often."""
    requests = cache.zipf_requests(ARGUMENTS, 8, seed=1)

    counts = Counter(r.adapter for r in requests)
    assert requests == cache.zipf_requests(ARGUMENTS, 8, seed=1)
    assert set(counts) == set(range(8))
    assert counts[0] / len(requests) == pytest.approx(0.368, abs=0.03)
    assert counts[0] / counts[1] == pytest.approx(2, abs=0.3)
