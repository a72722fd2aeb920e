"""A pod that is killed without warning, twice, ends as one that never was."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import killed_trainer
import pytest
import servers
import tiny_base
import trainer_jobs
from loraland_core import artifacts, jobspec
from loraland_core.jobspec import JobSpec
from loraland_core.store import Store, StoreConfig

LIMIT_S = 120
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TRAINING = {"maxSteps": 12, "batchSize": 2, "gradientAccumulation": 2, "seed": 5}


def attempt(job: JobSpec, folder: Path, place: str, step: int) -> int:
    """Run one pod of the job in a process of its own; return how it ended."""
    (folder / "etc" / "loraland").mkdir(parents=True)
    (folder / "etc" / "loraland" / "job.json").write_text(job.to_json())
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": ":".join(sys.path),
        "LORALAND_ROOT": str(folder),
        "LORALAND_CACHE_DIR": str(folder / "cache"),
        "LORALAND_TERMINATION_LOG": str(folder / "termination-log"),
        "LORALAND_PROGRESS_PORT": str(servers.free_port()),
        "AWS_ACCESS_KEY_ID": servers.S3_CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": servers.S3_CREDENTIALS["aws_secret_access_key"],
        "OMP_NUM_THREADS": "1",
        "POD_IP": "127.0.0.1",
    }
    with (folder / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, killed_trainer.__file__, place, str(step)],
            env=environment,
            stdout=log,
            stderr=log,
            timeout=LIMIT_S,
            check=False,
        )
    return done.returncode


def steps_of(store: Store, uid: str) -> list[dict[str, Any]]:
    result = artifacts.parse_result(store.read(artifacts.result_key(uid)))
    text = store.read(store.key(result.uri) + "steps.jsonl").decode()
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_that_is_killed_twice_has_the_losses_of_one_that_is_not(
    store: Store, store_config: StoreConfig, tmp_path: Path
) -> None:
    """Once in the middle of a checkpoint's upload, once between two; dropout and float32."""
    base = tiny_base.write_base_model(tmp_path / "base")
    common: dict[str, Any] = {
        "base_folder": base,
        "method": "LoRA",
        "training": TRAINING,
        "lora": {"rank": 4, "alpha": 8, "dropout": "0.3", "targetModules": ["all-linear"]},
        "checkpoint": {"everySteps": 3, "keepLast": 2},
    }
    whole = trainer_jobs.build_job(store_config, uid="whole", **common)
    killed = trainer_jobs.build_job(store_config, uid="killed", **common)

    codes = [
        attempt(whole, tmp_path / "whole", "never", 0),
        attempt(killed, tmp_path / "first", "upload", 6),
        attempt(killed, tmp_path / "second", "step", 10),
        attempt(killed, tmp_path / "third", "never", 0),
        attempt(killed, tmp_path / "fourth", "never", 0),
    ]

    logs = [(tmp_path / name / "log").read_text() for name in ("second", "third", "fourth")]
    expected = [step["loss"] for step in steps_of(store, "whole")]
    found = steps_of(store, "killed")
    assert codes == [0, -signal.SIGKILL, -signal.SIGKILL, 0, 0], logs[1][-4000:]
    assert "resuming from the checkpoint of step 3" in logs[0]
    assert "resuming from the checkpoint of step 9" in logs[1]
    assert "has its result already" in logs[2]
    assert [step["step"] for step in found] == list(range(1, 13))
    assert [step["loss"] for step in found] == pytest.approx(expected, abs=1e-5)
    assert not list(store.find_objects("jobs/killed/checkpoints/"))
    assert codes[3] == jobspec.ExitCode.DONE
