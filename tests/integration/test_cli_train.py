"""``loraland train``: a job of a tiny base model on this machine, without cluster and without S3."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_base
import trainer_jobs
import yaml
from loraland_cli import train
from loraland_core import artifacts
from loraland_core.folder_store import FolderStore
from loraland_core.store import Store, StoreConfig


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue with the tiny base model in it."""
    folder = tmp_path_factory.mktemp("base")
    tiny_base.write_base_model(folder / "tiny")
    entry = trainer_jobs.build_entry(folder / "tiny", dtype="float32", quantization="none")
    tiny = entry.model_dump(by_alias=True, exclude_none=True)
    path = folder / "catalogue.yaml"
    path.write_text(yaml.safe_dump({"schemaVersion": 1, "baseModels": {"tiny": tiny}}))
    return path


def write_job(folder: Path, **spec: Any) -> Path:
    defaults = {
        "baseModel": "tiny",
        "method": "LoRA",
        "lora": {"rank": 4, "alpha": 8, "targetModules": ["all-linear"]},
        "training": {"maxSteps": 2, "batchSize": 2, "gradientAccumulation": 1},
        "evaluation": {"maxNewTokens": 4},
        "dataset": trainer_jobs.DATASET,
    }
    document = {
        "apiVersion": "loraland.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "words"},
        "spec": defaults | spec,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command takes signals and logs for itself; the tests' process keeps its own."""
    monkeypatch.setattr("loraland_cli.train.logs.configure", lambda **_: None)
    monkeypatch.setattr("loraland_cli.train.noise.hush", lambda: None)
    monkeypatch.setattr("loraland_trainer.redaction.install", lambda _: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def options(output: Path | str, catalogue: Path, **changes: Any) -> train.Options:
    settings: dict[str, Any] = {"volumes": (), "json_file": None, "again": False}
    return train.Options(output=str(output), catalogue=catalogue, **(settings | changes))


def test_a_folder_gets_what_a_bucket_would(
    catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Manifest, files and result; a table for people and a document for programs."""
    summary = tmp_path / "summary.json"
    train.run(write_job(tmp_path), options(tmp_path / "out", catalogue, json_file=summary))

    document = json.loads(summary.read_text())
    store = FolderStore(tmp_path / "out")
    manifest = store.read(store.key(document["uri"]) + artifacts.MANIFEST_FILE)
    printed = capsys.readouterr().out
    assert artifacts.parse_manifest(manifest, expected_digest=document["digest"]).rank == 4
    assert document["totalSteps"] == 2
    assert "ExactMatch" in printed
    assert document["digest"] in printed


def test_a_job_that_has_its_result_shows_it_again(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained twice, unless the command says so."""
    path = write_job(tmp_path)
    train.run(path, options(tmp_path / "out", catalogue))
    trained: list[str] = []
    monkeypatch.setattr("loraland_trainer.job.train_adapter", lambda job, **_: trained.append(job))

    train.run(path, options(tmp_path / "out", catalogue))
    assert not trained

    with pytest.raises(Exception, match="does not exist"):
        train.run(path, options(tmp_path / "out", catalogue, again=True))
    assert len(trained) == 1


def test_the_output_can_be_a_bucket(
    catalogue: Path, store: Store, store_config: StoreConfig, tmp_path: Path, monkeypatch: Any
) -> None:
    """Credentials and endpoint come from the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store_config.endpoint_url)
    uri = f"s3://{store_config.bucket}/{store_config.prefix}"

    train.run(write_job(tmp_path), options(uri, catalogue))

    keys = [found.key for found in store.find_objects("adapters/default/words/")]
    assert any(key.endswith(artifacts.MANIFEST_FILE) for key in keys)


def test_a_folder_stands_for_a_volume(catalogue: Path, tmp_path: Path) -> None:
    """The same YAML as on the cluster."""
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.jsonl").write_text(trainer_jobs.INLINE["rows"])
    dataset = trainer_jobs.DATASET | {"pvc": {"claim": "words", "path": "*.jsonl"}}
    del dataset["inline"]

    given = options(tmp_path / "out", catalogue, volumes=(f"words={rows}",))
    train.run(write_job(tmp_path, dataset=dataset), given)

    assert list((tmp_path / "out" / "jobs").glob("*/result.json"))


NO_VOLUME = trainer_jobs.DATASET | {"pvc": {"claim": "words", "path": "x"}}


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        pytest.param({"baseModel": "huge"}, "UnknownBaseModel: spec.baseModel", id="base-model"),
        pytest.param({"batch": 1}, "InvalidJob: ", id="unknown-field"),
        pytest.param(
            {"dataset": {k: v for k, v in NO_VOLUME.items() if k != "inline"}},
            "give --volume words=FOLDER",
            id="volume",
        ),
    ],
)
def test_a_wrong_job_ends_as_in_a_pod(
    *,
    catalogue: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spec: dict[str, Any],
    part: str,
) -> None:
    """Exit code 42 and a sentence."""
    with pytest.raises(SystemExit) as caught:
        train.run(write_job(tmp_path, **spec), options(tmp_path / "out", catalogue))

    assert caught.value.code == 42
    assert part in capsys.readouterr().err


def test_processes_become_micro_steps(catalogue: Path, tmp_path: Path) -> None:
    """The rows of a step are those of the cluster's job, and so is what is learned."""
    from loraland_cli import jobfile  # noqa: PLC0415

    path = write_job(tmp_path, numNodes=2, numProcPerNode=2)

    job = train.build_job(jobfile.read(path), options(tmp_path / "out", catalogue))

    assert job.spec.training.gradient_accumulation == 4
    assert (job.spec.num_nodes, job.spec.num_proc_per_node) == (1, 1)


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint(catalogue: Path, tmp_path: Path) -> None:
    """A real process, a real signal: exit code 143, and the checkpoint is in the folder."""
    training = {"maxSteps": 20_000, "batchSize": 1, "gradientAccumulation": 1}
    command = [sys.executable, "-m", "loraland_cli.main", "train"]
    command += [str(write_job(tmp_path, training=training)), "--catalogue", str(catalogue)]
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)},
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "step 1/" in line:
                break
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 143, "".join([*lines, rest])
    assert list((tmp_path / "out").glob("jobs/*/checkpoints/step-*/manifest.json"))
