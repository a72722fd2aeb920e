"""The operator from an applied FineTuneJob to a Ready Adapter, against real servers."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from loraland_core import keys, names
from loraland_core.artifacts import File
from loraland_core.jobspec import TerminationMessage
from operator_objects import BASE, build_adapter_object, build_job_object
from operator_world import Answer, World, path_of, running_world, wait_for

JOBS, ADAPTERS = names.FINE_TUNE_JOBS, names.ADAPTERS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(Path(tmp_path_factory.mktemp("world"))) as found:
        found.start_operator()
        yield found


def train(world: World, name: str, **spec: Any) -> dict[str, Any]:
    """Take a job as far as a Job that completed, and return the Job."""
    world.create(build_job_object(name, **spec))
    job = world.wait_for_job(name)
    world.start_pod(job)
    adapter_name = spec.get("output", {}).get("adapter", {}).get("name", name)
    world.write_result(job, adapter_name)
    world.complete(job)
    return job


def test_job_becomes_a_ready_adapter(world: World) -> None:
    """The whole way, with live progress, scores and the events that tell it."""
    world.create(build_job_object("tickets"))
    job = world.wait_for_job("tickets")
    world.progress = {"step": 15, "totalSteps": 60, "loss": 0.5, "phase": "training"}
    world.start_pod(job)
    wait_for(
        lambda: (
            (world.api.call("GET", path_of(JOBS, "tickets"))["status"].get("progress") or {}).get(
                "step"
            )
            == 15
        ),
        "progress in the status",
    )
    result = world.write_result(job, "tickets")
    world.complete(job)
    done = world.wait_for_condition(JOBS, "tickets", "Succeeded", "True/Completed")
    world.wait_for_condition(ADAPTERS, "tickets", "Ready", "False/NoLiveReplica")
    world.beat()
    adapter = world.wait_for_condition(ADAPTERS, "tickets", "Ready", "True/Serving")

    assert done["status"]["adapterRef"]["name"] == "tickets"
    assert done["status"]["metrics"] == [
        {"name": "ExactMatch", "base": "0.0000", "tuned": "0.7500"}
    ]
    assert adapter["status"]["digest"] == result.digest
    assert adapter["status"]["replicas"] == {"ready": 1, "total": 1}
    record = world.record("default/tickets")
    assert record is not None
    assert record.digest == result.digest
    assert str(record.revision) == adapter["status"]["registeredRevision"]
    assert world.events_of("FineTuneJob", "tickets") == [
        "SpecAccepted",
        "Training",
        "ArtifactUploaded",
        "Published",
        "Completed",
    ]
    assert world.events_of("Adapter", "tickets") == [
        "SpecAccepted",
        "ArtifactValid",
        "NoLiveReplica",
        "Serving",
    ]


def test_failed_pod_is_explained(world: World) -> None:
    """The trainer's own reason and sentence stand in the status; nothing is published."""
    world.create(build_job_object("broken"))
    job = world.wait_for_job("broken")
    pod = world.start_pod(job)
    said = TerminationMessage(reason="InvalidRow", message="row 7 is not JSON").to_json()
    world.fail(job, pod, 42, said)
    failed = world.wait_for_condition(JOBS, "broken", "Succeeded", "False/InvalidRow")

    assert failed["status"]["failure"] == {
        "reason": "InvalidRow",
        "message": "row 7 is not JSON",
        "exitCode": 42,
    }
    assert world.api.find(path_of(ADAPTERS, "broken")) is None


def test_hand_made_adapter_is_left_alone(world: World) -> None:
    """A job never takes a name that somebody else uses."""
    manifest = world.upload_artifact("mine")
    world.create(build_adapter_object("mine", source={"artifact": {"digest": manifest.digest}}))
    train(world, "taker", output={"adapter": {"name": "mine"}})
    world.wait_for_condition(JOBS, "taker", "AdapterPublished", "False/NameTaken")

    labels = world.api.call("GET", path_of(ADAPTERS, "mine"))["metadata"].get("labels", {})
    assert names.LABEL_JOB not in labels


def test_newer_job_replaces_the_older_ones_artifact(world: World) -> None:
    """Training again under the same Adapter's name rolls the new digest out."""
    train(world, "first", output={"adapter": {"name": "shared"}})
    world.wait_for_condition(JOBS, "first", "AdapterPublished", "True/Published")
    # Kubernetes dates objects in whole seconds.
    time.sleep(1)
    train(world, "second", output={"adapter": {"name": "shared"}})
    world.wait_for_condition(JOBS, "second", "AdapterPublished", "True/Published")

    adapter = world.api.call("GET", path_of(ADAPTERS, "shared"))
    assert adapter["metadata"]["labels"][names.LABEL_JOB] == "second"


def test_deleted_job_leaves_its_adapter(world: World) -> None:
    """The Adapter is nobody's child."""
    train(world, "gone")
    world.wait_for_condition(JOBS, "gone", "AdapterPublished", "True/Published")
    world.delete(JOBS, "gone")
    wait_for(lambda: world.api.find(path_of(JOBS, "gone")) is None, "job gone")

    assert world.api.find(path_of(ADAPTERS, "gone")) is not None


def test_ttl_removes_the_job(world: World) -> None:
    """A finished job goes by itself when its time is over."""
    train(world, "brief", ttlSecondsAfterFinished=0)
    wait_for(lambda: world.api.find(path_of(JOBS, "brief")) is None, "job gone")

    assert world.api.find(path_of(ADAPTERS, "brief")) is not None


def test_suspended_job_waits_and_goes_on(world: World) -> None:
    """Suspension is passed on to the Job, both ways."""
    world.create(build_job_object("sleeper", suspend=True))
    job = world.wait_for_job("sleeper")
    world.wait_for_condition(JOBS, "sleeper", "Suspended", "True/Suspended")
    world.api.patch(path_of(JOBS, "sleeper"), {"spec": {"suspend": False}})
    wait_for(
        lambda: world.api.call("GET", path_of("jobs", "sleeper"))["spec"]["suspend"] is False,
        "Job resumed",
    )

    assert job["spec"]["suspend"] is True


BAD_ARTIFACTS = [
    pytest.param({"baseModel": "another"}, "Compatible", "False/BaseModelMismatch", id="base"),
    pytest.param({"rank": 128}, "Compatible", "False/RankOverLimit", id="rank"),
]


@pytest.mark.parametrize(("changes", "type_", "wanted"), BAD_ARTIFACTS)
def test_unfit_artifact_is_refused(
    world: World, request: pytest.FixtureRequest, changes: dict[str, Any], type_: str, wanted: str
) -> None:
    """An artifact that replicas could not serve never reaches the registry."""
    name = f"unfit-{request.node.callspec.id}"
    digest = world.upload_artifact(name, **changes).digest
    world.create(build_adapter_object(name, source={"artifact": {"digest": digest}}))
    world.wait_for_condition(ADAPTERS, name, type_, wanted)

    assert world.record(f"default/{name}") is None


def test_damaged_artifacts_are_refused_by_name(world: World) -> None:
    """A missing manifest, a changed file and a pickle each have their reason."""
    damages = {
        "absent": ("False/ManifestMissing", None),
        "longer": ("False/DigestMismatch", "adapter_model.safetensors"),
        "pickled": ("False/ArtifactInvalid", None),
    }
    for name, (wanted, damaged_file) in damages.items():
        digest = "0" * 64
        if damaged_file:
            digest = world.upload_artifact(name).digest
            world.store.write(f"adapters/default/{name}/{digest}/{damaged_file}", b"x" * 999)
        if name == "pickled":
            pickle = File(path="adapter_model.bin", size_bytes=1, sha256="0" * 64)
            world.store.write(
                f"adapters/default/{name}/{digest}/manifest.json",
                world.upload_artifact("sound").model_copy(update={"files": [pickle]}).to_json(),
            )
        world.create(build_adapter_object(name, source={"artifact": {"digest": digest}}))
        world.wait_for_condition(ADAPTERS, name, "ArtifactVerified", wanted)


def test_disabled_adapter_leaves_the_registry(world: World) -> None:
    """Disabling stops serving at once and keeps the object."""
    digest = world.upload_artifact("switch").digest
    world.create(build_adapter_object("switch", source={"artifact": {"digest": digest}}))
    wait_for(lambda: world.record("default/switch"), "record")
    world.api.patch(path_of(ADAPTERS, "switch"), {"spec": {"enabled": False}})
    world.wait_for_condition(ADAPTERS, "switch", "Ready", "False/Disabled")

    assert world.record("default/switch") is None


def test_deletion_policy_spares_shared_files(world: World) -> None:
    """Files go with their last Adapter, not before."""
    digest = world.upload_artifact("owner").digest
    spec = {"deletionPolicy": "Delete"}
    world.create(build_adapter_object("owner", source={"artifact": {"digest": digest}}, **spec))
    other = {"artifact": {"digest": digest, "name": "owner"}}
    world.create(build_adapter_object("borrower", source=other, **spec))
    wait_for(lambda: world.record("default/owner"), "record")
    wait_for(lambda: world.record("default/borrower"), "record")
    manifest = f"adapters/default/owner/{digest}/manifest.json"

    for name, kept in (("owner", True), ("borrower", False)):
        world.delete(ADAPTERS, name)
        wait_for(lambda n=name: world.api.find(path_of(ADAPTERS, n)) is None, f"{name} gone")  # type: ignore[misc]
        assert world.record(f"default/{name}") is None
        assert world.store.exists(manifest) is kept


def test_lost_registry_is_written_again(world: World) -> None:
    """Redis is never the only copy; an Adapter keeps its revision, so it stays Ready."""
    before = world.record("default/tickets")
    world.redis.delete(keys.adapters(BASE), keys.epoch(BASE), keys.changes(BASE))
    wait_for(lambda: world.redis.exists(keys.epoch(BASE)), "epoch")

    assert before == world.record("default/tickets")
    assert world.condition(ADAPTERS, "tickets", "Ready") == "True/Serving"


def test_strangers_in_the_registry_are_removed(world: World) -> None:
    """A record without an Adapter goes with the next publication."""
    stray = world.redis.hget(keys.adapters(BASE), "default/tickets")
    world.redis.hset(keys.adapters(BASE), "default/stray", stray)
    world.redis.delete(keys.epoch(BASE))
    wait_for(lambda: world.redis.exists(keys.epoch(BASE)), "epoch")

    assert world.record("default/stray") is None


def test_nothing_is_left_of_kopf_on_our_objects(world: World) -> None:
    """No finalizer on jobs, no annotations: an uninstalled operator leaves nothing behind."""
    job = world.api.call("GET", path_of(JOBS, "tickets"))

    assert "finalizers" not in job["metadata"]
    assert not any("kopf" in a for a in job["metadata"].get("annotations", {}))


def test_operator_answers_probes_and_scrapes(world: World) -> None:
    """The kubelet asks /healthz, Prometheus /metrics."""
    pool = urllib3.PoolManager(retries=False)
    answers = {}
    for name, path in (("LIVENESS", "healthz"), ("METRICS", "metrics")):
        port = world.environment[f"LORALAND_{name}_PORT"]
        answers[path] = pool.request("GET", f"http://127.0.0.1:{port}/{path}", timeout=5)
    pool.clear()

    assert answers["healthz"].status == 200
    assert b'loraland_operator_reconciles_total{kind="Adapter"}' in answers["metrics"].data


def test_spec_is_immutable(world: World) -> None:
    """The API server refuses what would change a run under way."""
    with pytest.raises(Answer, match="immutable"):
        world.api.patch(path_of(JOBS, "tickets"), {"spec": {"method": "LoRA"}})


def test_deadline_is_set_changed_and_taken_away(world: World) -> None:
    """What the spec says of the deadline is what the Job has, at any time."""
    world.create(build_job_object("due", activeDeadlineSeconds=900))
    path = path_of("jobs", "due")

    def deadline() -> int | None:
        job = world.api.find(path)
        return job["spec"].get("activeDeadlineSeconds") if job else None

    wait_for(lambda: deadline() == 900, "the deadline")
    world.api.patch(path_of(JOBS, "due"), {"spec": {"activeDeadlineSeconds": 60}})
    wait_for(lambda: deadline() == 60, "the other deadline")
    world.api.patch(path_of(JOBS, "due"), {"spec": {"activeDeadlineSeconds": None}})
    wait_for(lambda: deadline() is None, "no deadline")

    assert world.api.call("GET", path)["spec"]["suspend"] is False
