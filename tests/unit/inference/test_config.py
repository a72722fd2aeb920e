"""The settings of a replica: defaults, and what is said of a wrong one."""

from pathlib import Path

import pytest
from loraland_core.errors import InvalidInput
from loraland_inference import config

CATALOGUE = """
schemaVersion: 1
baseModels:
  tiny:
    source: {directory: /models/tiny}
    limits: {contextTokens: 256, maxRank: 16}
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(CATALOGUE)
    return {
        "LORALAND_CATALOGUE": str(catalogue),
        "LORALAND_BASE_MODEL": "tiny",
        "LORALAND_STORE_BUCKET": "adapters",
        "LORALAND_REDIS_URL": "redis://localhost:6379/0",
        "POD_IP": "127.9.9.9",
        "POD_NAME": "replica-7",
    }


def test_config_has_defaults_for_all_but_what_must_be_set(environ: dict[str, str]) -> None:
    """Four settings are enough to start."""
    read = config.read(environ)

    assert (read.num_slots, read.max_running, read.max_queue) == (8, 16, 256)
    assert read.kv_memory_bytes == 0
    assert (read.address, read.replica) == ("127.9.9.9:8500", "replica-7")
    assert read.entry.limits.max_rank == 16
    assert (read.disk_bytes, read.host_bytes, read.slot_bytes) == (16 * 2**30, 2**30, 0)
    assert read.packed_dir == read.adapter_dir / "packed"


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"LORALAND_BASE_MODEL": ""}, "LORALAND_BASE_MODEL", "must be set"),
        ({"LORALAND_STORE_BUCKET": ""}, "LORALAND_STORE_BUCKET", "must be set"),
        ({"LORALAND_REDIS_URL": ""}, "LORALAND_REDIS_URL", "must be set"),
        ({"LORALAND_BASE_MODEL": "huge"}, "spec.baseModel", "it knows: tiny"),
        ({"LORALAND_NUM_SLOTS": "0"}, "LORALAND_NUM_SLOTS", "from 1"),
        ({"LORALAND_PREFIX_CACHE": "no"}, "LORALAND_PREFIX_CACHE", "true or false"),
        ({"LORALAND_PORT": "http"}, "LORALAND_PORT", "'http'"),
        ({"LORALAND_CATALOGUE": "/absent.yaml"}, "/absent.yaml", "cannot be read"),
    ],
    ids=[
        "no-base",
        "no-bucket",
        "no-redis",
        "unknown-base",
        "slots",
        "switch",
        "port",
        "catalogue",
    ],
)
def test_config_names_the_setting_that_is_wrong(
    environ: dict[str, str], changes: dict[str, str], field: str, words: str
) -> None:
    """The variable, what was found, what is expected."""
    with pytest.raises(InvalidInput, match=words) as caught:
        config.read(environ | changes)

    assert caught.value.field == field


def test_packed_folder_is_looked_for_among_the_pods_mounts(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a pod's volumes lie below a root of its own, so does its memory volume."""
    mounted = tmp_path / "rootfs" / "packed"
    mounted.mkdir(parents=True)
    monkeypatch.setenv("LORALAND_ROOT", str(tmp_path / "rootfs"))

    read = config.read({**environ, "LORALAND_PACKED_DIR": "/packed"})

    assert mounted == read.packed_dir
