"""One job in several processes: torchrun's launcher, gloo, a real S3 server."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
import tiny_base
import trainer_jobs
import waiting
from loraland_core import artifacts, jobspec
from loraland_core.jobspec import JobSpec
from loraland_core.store import Store, StoreConfig

Pod = subprocess.Popen[str]
# What four rows a step are: in one process, or in two with half as many each.
ALONE = {"maxSteps": 3, "batchSize": 4, "gradientAccumulation": 1}
HALVES = {"maxSteps": 3, "batchSize": 2, "gradientAccumulation": 1}
LIMIT_S = 110
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base.write_base_model(tmp_path_factory.mktemp("base"))


@contextlib.contextmanager
def pod(job: JobSpec, folder: Path, **variables: str) -> Iterator[Pod]:
    """A pod's process with the job's file where the operator mounts it."""
    (folder / "etc" / "loraland").mkdir(parents=True)
    (folder / "etc" / "loraland" / "job.json").write_text(job.to_json())
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LORALAND_ROOT": str(folder),
        "LORALAND_CACHE_DIR": str(folder / "cache"),
        "LORALAND_TERMINATION_LOG": str(folder / "termination-log"),
        "LORALAND_PROGRESS_PORT": str(servers.free_port()),
        "AWS_ACCESS_KEY_ID": servers.S3_CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": servers.S3_CREDENTIALS["aws_secret_access_key"],
        "OMP_NUM_THREADS": "1",
        "POD_IP": "127.0.0.1",
        **variables,
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "loraland_trainer"],
            env=environment,
            stderr=log,
            stdout=log,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=30)


def losses_of(store: Store, uid: str) -> list[float]:
    result = artifacts.parse_result(store.read(artifacts.result_key(uid)))
    metrics: dict[str, Any] = json.loads(store.read(store.key(result.uri) + "metrics.json"))
    return list(metrics["losses"])


def build(store: StoreConfig, base: Path, uid: str, **spec: Any) -> JobSpec:
    return trainer_jobs.build_job(store, base_folder=base, uid=uid, method="LoRA", **spec)


def test_two_processes_learn_what_one_does(
    store: Store, store_config: StoreConfig, base_folder: Path, tmp_path: Path
) -> None:
    """The same rows a step give the same losses, however many processes share them."""
    together = build(
        store_config, base_folder, "uid-2", training=HALVES | {"seed": 7}, numProcPerNode=2
    )
    alone = build(store_config, base_folder, "uid-1", training=ALONE | {"seed": 7})
    port = str(servers.free_port())
    with (
        pod(alone, tmp_path / "one") as one,
        pod(together, tmp_path / "two", LORALAND_NUM_PROC_PER_NODE="2", MASTER_PORT=port) as two,
    ):
        codes = (one.wait(timeout=LIMIT_S), two.wait(timeout=LIMIT_S))

    assert codes == (0, 0), (tmp_path / "two" / "log").read_text()[-4000:]
    first, second = losses_of(store, "uid-1"), losses_of(store, "uid-2")
    assert second == pytest.approx(first, abs=2e-3)


def test_two_nodes_make_one_adapter(
    store: Store, store_config: StoreConfig, base_folder: Path, tmp_path: Path
) -> None:
    """Two pods of an Indexed Job meet at the first one's address; one of them commits."""
    job = build(store_config, base_folder, "uid-3", training=HALVES, numNodes=2)
    common = {
        "LORALAND_NUM_NODES": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(servers.free_port()),
    }
    with (
        pod(job, tmp_path / "a", JOB_COMPLETION_INDEX="0", **common) as first,
        pod(job, tmp_path / "b", JOB_COMPLETION_INDEX="1", **common) as second,
    ):
        codes = (first.wait(timeout=LIMIT_S), second.wait(timeout=LIMIT_S))

    assert codes == (0, 0), (tmp_path / "a" / "log").read_text()[-4000:]
    assert len(losses_of(store, "uid-3")) == HALVES["maxSteps"]
    manifests = [o.key for o in store.find_objects("adapters/") if o.key.endswith("manifest.json")]
    assert len(manifests) == 1


def test_a_wrong_job_ends_with_its_own_exit_code(
    store_config: StoreConfig, base_folder: Path, tmp_path: Path
) -> None:
    """The launcher passes on how the process that failed first ended, and what it said."""
    job = build(
        store_config,
        base_folder,
        "uid-4",
        dataset={**trainer_jobs.DATASET, "prompt": "{nowhere}"},
    )
    with pod(job, tmp_path / "pod", LORALAND_NUM_PROC_PER_NODE="2") as process:
        code = process.wait(timeout=LIMIT_S)
    said = jobspec.parse_termination_message((tmp_path / "pod" / "termination-log").read_text())

    assert code == jobspec.ExitCode.INVALID_JOB
    assert said is not None
    assert said.reason


def test_sigterm_reaches_every_process(
    store: Store, store_config: StoreConfig, base_folder: Path, tmp_path: Path
) -> None:
    """All stop after the same step, with one checkpoint."""
    training = {"maxSteps": 20_000, "batchSize": 1, "gradientAccumulation": 1}
    job = build(store_config, base_folder, "uid-5", training=training)
    port = str(servers.free_port())
    folder = tmp_path / "pod"
    with pod(job, folder, LORALAND_NUM_PROC_PER_NODE="2", MASTER_PORT=port) as process:
        waiting.wait_for(lambda: "step 1/" in (folder / "log").read_text(), limit_s=LIMIT_S)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=LIMIT_S)

    assert code == jobspec.ExitCode.TERMINATED, (folder / "log").read_text()[-4000:]
    assert any(o.key.endswith("manifest.json") for o in store.find_objects("jobs/uid-5/checkp"))
