"""From kubectl apply to a gRPC answer."""

import json
from pathlib import Path

import grpc
import pytest
from land import Land, condition, small_job
from loraland_client import Client
from loraland_client.failures import CallFailed
from loraland_local import kubectl


async def test_job_becomes_an_adapter_that_answers(land: Land, small_adapter: str) -> None:
    """The digest in the job's status is the digest that answers over gRPC."""
    job = land.get("finetunejob", small_adapter)
    async with Client(land.grpc_address, land.token) as client:
        reply = await client.generate(
            adapter=f"default/{small_adapter}",
            fields={"message": "Where is order 4711?"},
            max_tokens=8,
        )

    assert (reply.digest, reply.completion_tokens > 0) == (
        job["status"]["artifact"]["digest"],
        True,
    )


def test_job_tells_its_story_in_its_status(land: Land, small_adapter: str) -> None:
    """Conditions, scores and the adapter's name are there to read."""
    job = land.get("finetunejob", small_adapter)
    told = {kind: condition(job, kind)["status"] for kind in ("Uploaded", "AdapterPublished")}
    scores = [(m["name"], "base" in m, "tuned" in m) for m in job["status"]["metrics"]]

    assert (told, scores, job["status"]["phase"]) == (
        {"Uploaded": "True", "AdapterPublished": "True"},
        [("JsonFieldMatch", True, True)],
        "Succeeded",
    )


def test_artifact_lies_in_the_store_with_its_manifest(land: Land, small_adapter: str) -> None:
    """What the status names is there as files, PEFT's as PEFT writes them."""
    uri = land.get("finetunejob", small_adapter)["status"]["artifact"]["uri"]
    folder = land.place.objects / uri.removeprefix("s3://")
    manifest = json.loads((folder / "manifest.json").read_text())
    served = {f["path"] for f in manifest["files"]}

    assert {"adapter_config.json", "adapter_model.safetensors", "prompt.json"} <= served


def test_kubectl_shows_jobs_and_adapters_as_tables(land: Land, small_adapter: str) -> None:
    """The printer columns carry what a person looks for."""
    jobs = land.kubectl("get", "ftj", small_adapter, "--no-headers").stdout.split()
    adapters = land.kubectl("get", "adp", small_adapter, "--no-headers").stdout.split()

    assert ("Succeeded" in jobs, "True" in adapters) == (True, True)


def test_kubectl_shows_the_training_pods_log(land: Land, small_adapter: str) -> None:
    """The pod's own words stay readable after its end."""
    log = kubectl.pod_log(
        land.kubeconfig, "default", f"loraland.dev/fine-tune-job={small_adapter}", num_lines=200
    )

    assert "step 3/3" in log


def test_deleting_the_job_leaves_the_adapter_serving(land: Land, small_adapter: str) -> None:
    """The job does not own its Adapter, but it does own its pods."""
    land.apply(small_job("passing", evaluation={"metrics": ["ExactMatch"], "maxSamples": 1}))
    land.wait("finetunejob", "passing", "Succeeded")
    land.wait("adapter", "passing", "Ready", timeout_s=120)
    land.kubectl("delete", "finetunejob", "passing", "--wait=true")
    land.kubectl("wait", "job", "passing", "--for=delete", "--timeout=60s")
    adapter = land.get("adapter", "passing")
    jobs = land.kubectl("get", "jobs", "passing", "--ignore-not-found", "-o", "name").stdout

    assert (condition(adapter, "Ready")["status"], jobs) == ("True", "")


@pytest.mark.parametrize("named", [True, False], ids=["adapter", "base-model"])
def test_generate_prints_an_answer(land: Land, small_adapter: str, named: bool) -> None:
    """The command streams an answer to standard output."""
    adapter = ["--adapter", small_adapter] if named else []
    result = land.loraland("generate", *adapter, "The capital of France is", "--max-tokens", "6")

    assert (result.returncode, bool(result.stdout.strip())) == (0, True), result.stderr


REFUSED_REQUESTS = [
    pytest.param(
        {"prompt": "x", "adapter": "default/absent"},
        (grpc.StatusCode.NOT_FOUND, ""),
        id="unknown-adapter",
    ),
    pytest.param(
        {"prompt": "x", "temperature": -1.0},
        (grpc.StatusCode.INVALID_ARGUMENT, "sampling.temperature"),
        id="negative-temperature",
    ),
    pytest.param(
        {"prompt": "word " * 3000},
        (grpc.StatusCode.INVALID_ARGUMENT, "input"),
        id="prompt-over-the-limit",
    ),
]


@pytest.mark.parametrize(("request_", "expected"), REFUSED_REQUESTS)
async def test_bad_request_is_refused_with_code_and_field(
    land: Land, request_: dict[str, object], expected: tuple[grpc.StatusCode, str]
) -> None:
    """A caller learns what was wrong and where."""
    async with Client(land.grpc_address, land.token) as client:
        with pytest.raises(CallFailed) as failure:
            await client.generate(**request_)  # type: ignore[arg-type]

    assert (failure.value.code, failure.value.details.field) == expected


@pytest.mark.parametrize("token", ["", "not-the-token"], ids=["none", "wrong"])
async def test_request_without_the_token_is_refused(land: Land, token: str) -> None:
    """Nobody gets an answer without credentials."""
    async with Client(land.grpc_address, token) as client:
        with pytest.raises(CallFailed) as failure:
            await client.generate(prompt="x")

    assert failure.value.code == grpc.StatusCode.UNAUTHENTICATED


def test_status_shows_every_station_ready(land: Land) -> None:
    """A person sees at a glance that all is well, and where things are."""
    result = land.loraland("status")

    assert (result.returncode, land.grpc_address in result.stdout) == (0, True)


@pytest.mark.parametrize("station", ["api", "operator", "inference"])
def test_logs_shows_a_stations_log(land: Land, station: str) -> None:
    """Stations that are processes and stations that are pods are asked alike."""
    result = land.loraland("logs", station, "--lines", "5")

    assert (result.returncode, bool(result.stdout.strip())) == (0, True), result.stderr


def test_state_survives_a_restart_of_the_stack(land: Land, small_adapter: str) -> None:
    """Objects, files and the adapter's readiness come back after down and up."""
    before = {f.name for f in Path(land.place.objects).rglob("manifest.json")}
    stopped = land.loraland("down")
    started = land.loraland("up", timeout_s=900)
    assert (stopped.returncode, started.returncode) == (0, 0), started.stderr
    land.wait("adapter", small_adapter, "Ready", timeout_s=120)
    answer = land.loraland("generate", "-a", small_adapter, "hello", "--max-tokens", "4")

    assert (before, answer.returncode) == ({"manifest.json"}, 0), answer.stderr
