"""Where large tensors lie while a model is loaded, and that freed memory goes back."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only glibc is asked for anything of this"
)

# A process of its own: what else was allocated in this one would decide what is seen.
_PROGRAM = """
import psutil, torch
from loraland_models import allocation

def mib():
    return psutil.Process().memory_info().rss / 2**20

before = mib()
with allocation.large_apart():
    kept = [torch.ones(1 << 16) for _ in range(1024)]
    after_all = mib()
    del kept[::2]
    after_drop = mib()
allocation.return_freed()
print(after_all - before, after_drop - before)
"""


def test_every_other_dropped_tensor_is_gone_at_once() -> None:
    """Between tensors that stay there are no resident holes: half of 256 MiB is left of it."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=120
    )
    all_mib, left_mib = map(float, done.stdout.split())

    assert all_mib > 240
    assert left_mib < 160
