"""The front process as a whole: what it must never do."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import servers


def test_front_never_imports_torch() -> None:
    """All of the front's modules load without torch and Transformers, and so start fast."""
    code = (
        "import sys, loraland_inference.main\n"
        "bad = {'torch', 'transformers', 'loraland_engine', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(sorted(bad)) if bad else 0)"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")


def test_front_says_in_a_sentence_what_is_not_set() -> None:
    """A missing setting is a sentence and exit code 1, not a traceback."""
    result = subprocess.run(
        [sys.executable, "-m", "loraland_inference"],
        capture_output=True, text=True, timeout=60, check=False, env={},
    )  # fmt: skip

    expected = "loraland-inference: LORALAND_BASE_MODEL: must be set\n"
    assert (result.returncode, result.stderr) == (1, expected)


@pytest.mark.parametrize("setting", ["LORALAND_PORT", "LORALAND_METRICS_PORT"])
def test_front_says_in_a_sentence_that_a_port_is_taken(tmp_path: Path, setting: str) -> None:
    """The setting to change is named."""
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text("baseModels: {tiny: {source: {directory: /absent}}}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = {
            "LORALAND_CATALOGUE": str(catalogue),
            "LORALAND_BASE_MODEL": "tiny",
            "LORALAND_STORE_BUCKET": "adapters",
            "LORALAND_REDIS_URL": "redis://127.0.0.1:1/0",
            "LORALAND_CACHE_DIR": str(tmp_path),
            "LORALAND_PORT": str(servers.free_port()),
            "LORALAND_METRICS_PORT": str(servers.free_port()),
            "POD_IP": "127.0.0.1",
            setting: str(taken.getsockname()[1]),
        }
        result = subprocess.run(
            [sys.executable, "-m", "loraland_inference"],
            capture_output=True, text=True, timeout=60, check=False, env=os.environ | settings,
        )  # fmt: skip

    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith(f"loraland-inference: {setting}: ")
    assert "Traceback" not in result.stderr
