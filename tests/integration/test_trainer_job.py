"""Whole jobs of a tiny base model against a real S3 server: what they leave and how they end."""

import gzip
import json
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
from loraland_core import artifacts, jobspec, prompts
from loraland_core.jobspec import JobSpec
from loraland_core.store import Store, StoreConfig
from loraland_trainer import main
from loraland_trainer.termination import Terminator
from peft import PeftModel
from transformers import AutoModelForCausalLM


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base.write_base_model(tmp_path_factory.mktemp("base"))


def run(job: JobSpec, folder: Path, **settings: Any) -> tuple[int, Any]:
    """Run the job in this process; return exit code and termination message."""
    folder.mkdir(exist_ok=True)
    config = trainer_jobs.build_config(folder, **settings)
    config.job_file.write_text(job.to_json())
    exit_code = main.attempt(config, terminator=Terminator())
    text = config.termination_log.read_text() if config.termination_log.exists() else ""
    return exit_code, jobspec.parse_termination_message(text)


def committed(store: Store, uid: str = "uid-1") -> tuple[artifacts.Result, artifacts.Manifest]:
    result = artifacts.parse_result(store.read(artifacts.result_key(uid)))
    manifest_key = store.key(result.uri) + artifacts.MANIFEST_FILE
    return result, artifacts.parse_manifest(store.read(manifest_key), expected_digest=result.digest)


def test_a_job_leaves_a_whole_artifact(
    store: Store, store_config: StoreConfig, base_folder: Path, tmp_path: Path
) -> None:
    """Files, manifest and result agree, and PEFT loads what was uploaded."""
    job = trainer_jobs.build_job(store_config, base_folder=base_folder)

    exit_code, _ = run(job, tmp_path / "pod")

    result, manifest = committed(store)
    downloaded = tmp_path / "adapter"
    downloaded.mkdir()
    for file in manifest.files:
        key = store.key(result.uri) + file.path
        sha256 = store.download(key, downloaded / file.path, max_bytes=file.size_bytes)
        assert file.sha256 == sha256
    base = AutoModelForCausalLM.from_pretrained(base_folder)
    tuned = PeftModel.from_pretrained(base, downloaded)
    prompt = prompts.parse_prompt((downloaded / prompts.PROMPT_FILE).read_bytes())
    assert exit_code == 0
    assert {
        "README.md",
        "curves.png",
        "events.out.tfevents.training",
        "metrics.json",
        "steps.jsonl",
    } < {file.path for file in manifest.files}
    assert sum("lora_A" in name for name, _ in tuned.named_parameters()) == 14
    assert prompt.template == "{word}:"
    assert [score.name for score in result.metrics] == ["ExactMatch", "RougeL"]
    assert (result.num_evaluated, result.total_steps) == (2, 2)
    assert store.uri(f"adapters/team/words/{result.digest}/") == result.uri


@pytest.mark.slow
def test_what_was_cut_is_in_metrics_result_and_card(
    store: Store, store_config: StoreConfig, base_folder: Path, tmp_path: Path
) -> None:
    """Whoever wonders about an answer finds how much of its question was learned."""
    training = {"maxSteps": 1, "batchSize": 1, "gradientAccumulation": 1, "maxSequenceLength": 8}
    rows = trainer_jobs.INLINE["rows"] + '{"word": "crocodile", "upper": "YES"}\n'
    inline = trainer_jobs.INLINE | {"rows": rows}
    condition = {"column": "word", "operator": "NotIn", "values": ["fox", "cat"]}
    job = trainer_jobs.build_job(
        store_config,
        base_folder=base_folder,
        training=training,
        dataset=trainer_jobs.DATASET | {"inline": inline, "filter": [condition]},
    )

    exit_code, message = run(job, tmp_path)

    assert exit_code == 0, message
    result, _ = committed(store)
    data = json.loads(store.read(store.key(result.uri) + "metrics.json"))["data"]
    card = store.read(store.key(result.uri) + "README.md").decode()
    assert (data["learned"]["rows"], data["rowsLeftOut"], data["learned"]["promptsCut"]) == (
        4,
        3,
        1,
    )
    assert data["learned"]["tokensCut"] == 6
    assert "dataset.inline: 3 rows left out by the filter; learned from 4 rows" in result.data
    assert "over 8 tokens, 1 prompts lost their beginning" in card


@pytest.mark.slow
def test_artifact_names_no_path_of_the_machine(
    store: Store, store_config: StoreConfig, base_folder: Path, tmp_path: Path
) -> None:
    """What depends on the machine would make another digest of the same weights."""
    run(trainer_jobs.build_job(store_config, base_folder=base_folder), tmp_path / "a")
    again = trainer_jobs.build_job(store_config, base_folder=base_folder, uid="uid-2")
    run(again, tmp_path / "b")

    first, manifest = committed(store)
    second, _ = committed(store, "uid-2")
    config = json.loads(store.read(store.key(first.uri) + artifacts.CONFIG_FILE))
    assert first.digest == second.digest
    assert config["base_model_name_or_path"] == "tiny"
    assert sorted(config["target_modules"]) == config["target_modules"]
    assert config["target_modules"] == manifest.target_modules


@pytest.mark.parametrize(
    ("dtype", "quantization", "label"),
    [
        pytest.param("bf16", "none", "bf16", id="bf16"),
        pytest.param("float32", "int8", "int8", id="int8"),
    ],
)
def test_scores_are_measured_on_the_serving_weights(
    *,
    store: Store,
    store_config: StoreConfig,
    base_folder: Path,
    tmp_path: Path,
    dtype: str,
    quantization: str,
    label: str,
) -> None:
    """Trained over NF4, served on something else: the metrics say so."""
    entry = trainer_jobs.build_entry(base_folder, dtype=dtype, quantization=quantization)

    exit_code, _ = run(trainer_jobs.build_job(store_config, entry=entry), tmp_path)

    result, manifest = committed(store)
    metrics = json.loads(store.read(store.key(result.uri) + "metrics.json"))
    assert exit_code == 0
    assert manifest.training_precision == "nf4"
    assert label == metrics["servingPrecision"]


def test_an_artifact_that_comes_back_damaged_is_no_result(
    *,
    store: Store,
    store_config: StoreConfig,
    base_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was uploaded is fetched and tried before the job is done; another attempt may help."""
    upload = Store.upload

    def damage(self: Store, path: Path, key: str) -> None:
        upload(self, path, key)
        if key.endswith(artifacts.WEIGHTS_FILE):
            self.write(key, b"damaged")

    monkeypatch.setattr(Store, "upload", damage)
    job = trainer_jobs.build_job(store_config, base_folder=base_folder)

    exit_code, message = run(job, tmp_path)

    assert exit_code == 1
    assert "is not what was uploaded" in message.message
    assert not store.exists(artifacts.result_key("uid-1"))


def test_a_failed_gate_is_a_result(
    store: Store, store_config: StoreConfig, base_folder: Path, tmp_path: Path
) -> None:
    """The job has done its work; whether to publish is the operator's to read."""
    evaluation = {"metrics": ["ExactMatch"], "maxNewTokens": 4, "gate": {"minimum": "0.9"}}
    job = trainer_jobs.build_job(store_config, base_folder=base_folder, evaluation=evaluation)

    exit_code, _ = run(job, tmp_path)

    result, _ = committed(store)
    assert exit_code == 0
    assert not result.gate_passed
    assert "less than the minimum 0.9" in result.gate_message


def test_a_retried_pod_that_finds_a_result_has_nothing_to_do(
    store: Store, store_config: StoreConfig, tmp_path: Path
) -> None:
    """The base model is not even looked for."""
    store.write(artifacts.result_key("uid-1"), b"{}")

    exit_code, message = run(trainer_jobs.build_job(store_config), tmp_path)

    assert (exit_code, message) == (0, None)


S3 = {"prompt": "{word}:", "completion": "{upper}"}


@pytest.mark.parametrize(
    ("dataset", "reason", "part"),
    [
        pytest.param(
            {"s3": {"uri": "s3://no-such-bucket/rows.jsonl"}},
            "BucketNotFound",
            "there is no bucket 'no-such-bucket'",
            id="bucket",
        ),
        pytest.param(
            {"s3": {"uri": "s3://{bucket}/absent.jsonl"}},
            "DatasetNotFound",
            "absent.jsonl: there is no such object",
            id="key",
        ),
        pytest.param(
            {"s3": {"uri": "s3://{bucket}/land/*.csv"}},
            "DatasetNotFound",
            "/land/ matches; there are: empty",
            id="wildcard",
        ),
        pytest.param(
            {"s3": {"uri": "s3://{bucket}/land/empty"}}, "EmptyDataset", "holds no rows", id="empty"
        ),
        pytest.param(
            {"inline": {"rows": '{"word": "a", "upper": "A"}\nword,upper\n'}},
            "InvalidRow",
            "dataset.inline.rows: row 2 is not JSON",
            id="not-json",
        ),
        pytest.param(
            {"inline": trainer_jobs.INLINE, "prompt": "{wrod}:"},
            "ColumnMissing",
            "no column 'wrod', which the templates name; its columns: upper, word",
            id="column",
        ),
        pytest.param(
            {"inline": trainer_jobs.INLINE, "prompt": "{word"},
            "InvalidTemplate",
            "spec.dataset.prompt: single '{'",
            id="template",
        ),
    ],
)
def test_bad_data_ends_the_job_with_a_reason(
    *,
    store: Store,
    store_config: StoreConfig,
    tmp_path: Path,
    dataset: Any,
    reason: str,
    part: str,
) -> None:
    """Exit code 42, so that nothing is retried, before any weights are loaded."""
    store.write("empty", b"")
    text = json.dumps(S3 | dataset).replace("{bucket}", store_config.bucket)

    job = trainer_jobs.build_job(store_config, dataset=json.loads(text))
    exit_code, message = run(job, tmp_path)

    assert exit_code == jobspec.ExitCode.INVALID_JOB
    assert reason == message.reason
    assert part in message.message


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        pytest.param(
            {"evaluation": {"metrics": ["JsonFieldMatch"]}}, "'CAT', which is no JSON", id="metric"
        ),
        pytest.param(
            {"lora": {"targetModules": ["query"]}}, "no linear module is named 'query'", id="module"
        ),
    ],
)
def test_what_cannot_work_is_said_before_training(
    *,
    store: Store,
    store_config: StoreConfig,
    base_folder: Path,
    tmp_path: Path,
    spec: Any,
    part: str,
) -> None:
    """Nobody waits for a training whose end cannot be reached."""
    job = trainer_jobs.build_job(store_config, base_folder=base_folder, **spec)

    exit_code, message = run(job, tmp_path)

    assert exit_code == jobspec.ExitCode.INVALID_JOB
    assert part in message.message
    assert not list(store.find_objects(""))


def test_rows_come_from_s3(
    store: Store, store_config: StoreConfig, base_folder: Path, tmp_path: Path
) -> None:
    """Training and evaluation rows are objects in a bucket, read with credentials of their own."""
    store.write("train/1.csv", b"word,upper\ncat,CAT\n")
    store.write("train/more/2.csv.gz", gzip.compress(b"word,upper\ndog,DOG\n"))
    store.write("train/notes.txt", b"no rows")
    store.write("test.csv", b"word,upper\nowl,OWL\n")
    s3 = {"uri": store.uri("train/**/*.csv*"), "evaluationUri": store.uri("test.csv")}
    job = trainer_jobs.build_job(
        store_config, base_folder=base_folder, dataset=S3 | {"s3": s3, "format": "CSV"}
    )

    exit_code, _ = run(job, tmp_path, dataset_credentials=servers.S3_CREDENTIALS)

    result, _ = committed(store)
    assert (exit_code, result.num_evaluated) == (0, 1)
    assert "learned from 2 rows" in result.data


def test_an_unreachable_store_is_found_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 44 within seconds: nothing is trained that could not be kept."""
    monkeypatch.setattr("loraland_core.store.MAX_ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    url = f"http://127.0.0.1:{servers.free_port()}"

    job = trainer_jobs.build_job(StoreConfig(bucket="bucket", endpoint_url=url))
    exit_code, message = run(job, tmp_path)

    assert exit_code == jobspec.ExitCode.STORE_UNREACHABLE
    assert f"artifact store at {url} does not answer" in message.message


def test_a_missing_job_file_is_said(tmp_path: Path) -> None:
    """The sentence names the file and who puts it there."""
    config = trainer_jobs.build_config(tmp_path)

    exit_code = main.attempt(config, terminator=Terminator())

    assert exit_code == jobspec.ExitCode.INVALID_JOB
    assert "job.json: cannot be read: No such file" in config.termination_log.read_text()


def pod_environment(root: Path) -> dict[str, str]:
    return {
        "PATH": "",
        "HOME": str(root),
        "LORALAND_ROOT": str(root),
        "LORALAND_TERMINATION_LOG": str(root / "termination-log"),
        "LORALAND_CACHE_DIR": str(root / "cache"),
        "LORALAND_PROGRESS_PORT": str(servers.free_port()),
        "POD_IP": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": ":".join(sys.path),
        "AWS_ACCESS_KEY_ID": servers.S3_CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": servers.S3_CREDENTIALS["aws_secret_access_key"],
    }


@pytest.fixture
def pod(
    store: Store, store_config: StoreConfig, base_folder: Path, tmp_path: Path
) -> Iterator["subprocess.Popen[str]"]:
    """A pod of its own process that would train for hours."""
    training = {"maxSteps": 20_000, "batchSize": 1, "gradientAccumulation": 1}
    job = trainer_jobs.build_job(store_config, base_folder=base_folder, training=training)
    (tmp_path / "etc" / "loraland").mkdir(parents=True)
    (tmp_path / "etc" / "loraland" / "job.json").write_text(job.to_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "loraland_trainer"],
        env=pod_environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_sigterm_ends_a_pod_in_training(
    pod: "subprocess.Popen[str]", store: Store, tmp_path: Path
) -> None:
    """A real process, a real signal: exit code 143, a checkpoint and a termination message."""
    assert pod.stderr is not None
    lines = []
    for line in pod.stderr:
        lines.append(line)
        if "step 1/" in line:
            break
    pod.send_signal(signal.SIGTERM)
    _, rest = pod.communicate(timeout=60)

    message = (tmp_path / "termination-log").read_text()
    assert pod.returncode == jobspec.ExitCode.TERMINATED, "".join([*lines, rest])
    assert '"reason": "Terminated"' in message
    assert "Traceback" not in rest
    assert any(o.key.endswith("manifest.json") for o in store.find_objects("jobs/uid-1/checkp"))
