"""An Adapter from elsewhere, from its import to its record."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loraland_core import artifacts, imports, names
from operator_objects import build_adapter_object
from operator_world import World, path_of, running_world, wait_for

ADAPTERS = names.ADAPTERS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(Path(tmp_path_factory.mktemp("world"))) as found:
        found.start_operator()
        yield found


def job_of(world: World, adapter: str) -> dict[str, Any]:
    """Return the Job of the Adapter's import, once it is there."""
    labels = f"{names.LABEL_IMPORT}={adapter}"
    return wait_for(
        lambda: next(iter(world.api.list(path_of("jobs"), labelSelector=labels)), None),
        f"the import of {adapter}",
    )


def create(world: World, name: str, uri: str = "s3://theirs/folder") -> dict[str, Any]:
    return world.create(build_adapter_object(name, source={"s3": {"uri": uri}}))


def finish_import(world: World, adapter: dict[str, Any], job: dict[str, Any]) -> str:
    """Play the import pod: artifact, then result, then the Job's end."""
    name = adapter["metadata"]["name"]
    manifest = world.upload_artifact(name)
    source = imports.SourceSpec.model_validate(adapter["spec"]["source"])
    key = imports.result_key(adapter["metadata"]["uid"], imports.source_hash(source))
    prefix = artifacts.adapter_prefix("default", name, manifest.digest)
    result = imports.ImportResult(digest=manifest.digest, uri=world.store.uri(prefix))
    world.store.write(key, result.to_json())
    world.complete(job)
    return manifest.digest


def test_import_ends_in_the_registry(world: World) -> None:
    """Fetched, verified, registered: as if a job had trained it here."""
    adapter = create(world, "brought")
    job = job_of(world, "brought")
    world.start_pod(job)
    world.wait_for_condition(ADAPTERS, "brought", "ArtifactVerified", "Unknown/Importing")
    digest = finish_import(world, adapter, job)
    world.wait_for_condition(ADAPTERS, "brought", "Registered", "True/RecordWritten")
    record = world.record("default/brought")

    assert record is not None
    assert (record.digest, len(world.api.list(path_of("jobs")))) == (digest, 1)


def test_swept_artifact_is_not_taken_for_imported(world: World) -> None:
    """Of a result without its artifact the condition says what to do."""
    adapter = create(world, "swept")
    job = job_of(world, "swept")
    source = imports.SourceSpec.model_validate(adapter["spec"]["source"])
    key = imports.result_key(adapter["metadata"]["uid"], imports.source_hash(source))
    prefix = artifacts.adapter_prefix("default", "swept", "e" * 64)
    result = imports.ImportResult(digest="e" * 64, uri=world.store.uri(prefix))
    world.store.write(key, result.to_json())
    world.complete(job)

    def advice() -> str:
        obj = world.api.call("GET", path_of(ADAPTERS, "swept"))
        return " ".join(c["message"] for c in obj.get("status", {}).get("conditions", []))

    wait_for(lambda: f"delete Job {job['metadata']['name']}" in advice(), "the advice")
    assert world.record("default/swept") is None


def test_failed_import_says_why(world: World) -> None:
    """The pod's last words are the condition's message; nothing is registered."""
    create(world, "missing", "s3://theirs/nowhere")
    job = job_of(world, "missing")
    pod = world.start_pod(job)
    world.fail(job, pod, 42, '{"reason": "SourceNotFound", "message": "there is no such file"}')
    obj = world.wait_for_condition(ADAPTERS, "missing", "ArtifactVerified", "False/ImportFailed")
    message = next(
        c["message"] for c in obj["status"]["conditions"] if c["type"] == "ArtifactVerified"
    )

    assert "there is no such file" in message
    assert world.record("default/missing") is None


def test_other_source_is_imported_while_the_earlier_one_serves(world: World) -> None:
    """A new source is a new Job; the record stays until its digest is there."""
    adapter = world.api.call("GET", path_of(ADAPTERS, "brought"))
    before = world.record("default/brought")
    source = {"s3": {"uri": "s3://theirs/second"}}
    changed = world.api.patch(path_of(ADAPTERS, "brought"), {"spec": {"source": source}})
    labels = f"{names.LABEL_IMPORT}=brought"
    jobs = wait_for(
        lambda: (
            (found := world.api.list(path_of("jobs"), labelSelector=labels))
            and len(found) == 2
            and found
        ),
        "the second import",
    )

    assert world.record("default/brought") == before
    assert changed["metadata"]["uid"] == adapter["metadata"]["uid"]
    assert len({job["metadata"]["name"] for job in jobs}) == 2
