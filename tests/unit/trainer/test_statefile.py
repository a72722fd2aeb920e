"""State survives a round trip through JSON and safetensors."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from loraland_trainer import statefile


def test_state_survives_a_round_trip(tmp_path: Path) -> None:
    """Numbers as keys, tuples, nothing, arrays and tensors come back as they were."""
    state = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 2)}},
        "param_groups": [{"betas": (0.9, 0.999), "foreach": None, "params": [0, 1], "lr": 1e-3}],
        "python": random.getstate(),
    }

    statefile.write_state(state, tmp_path)
    found = statefile.read_state(tmp_path)

    torch.testing.assert_close(found.pop("state"), state.pop("state"))
    assert state == found


def test_arrays_keep_their_dtype(tmp_path: Path) -> None:
    """NumPy's generator needs its 32-bit words."""
    statefile.write_state({"keys": np.array([1, 2**32 - 1], dtype=np.uint32)}, tmp_path)

    keys = statefile.read_state(tmp_path)["keys"]

    assert keys.dtype == np.uint32
    assert keys.tolist() == [1, 2**32 - 1]


def test_shared_memory_is_no_obstacle(tmp_path: Path) -> None:
    """Two views of one tensor are written as two tensors."""
    whole = torch.arange(4.0)

    statefile.write_state([whole, whole[1:3]], tmp_path)

    torch.testing.assert_close(statefile.read_state(tmp_path), [whole, whole[1:3]])


def test_anything_else_is_refused(tmp_path: Path) -> None:
    """An object would need pickle."""
    with pytest.raises(TypeError, match="a set cannot be kept in a checkpoint"):
        statefile.write_state({"modules": {1, 2}}, tmp_path)
