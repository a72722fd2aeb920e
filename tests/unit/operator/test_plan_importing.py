"""An Adapter whose files come from elsewhere, at every station of its import."""

from dataclasses import replace
from typing import Any

import pytest
from loraland_core import imports
from loraland_core.imports import ImportResult
from loraland_core.resources import Adapter
from loraland_core.store import StoreConfig
from loraland_operator import importer_pod
from loraland_operator.plan import importing
from loraland_operator.plan.adapter import Observed, needs_verification, plan
from loraland_operator.plan.importing import Import
from loraland_operator.plan.steps import AdapterPlan, Apply
from operator_objects import BASE, DIGEST, ENTRY, NOW, build_adapter, build_child, build_ended_pod

SOURCES: dict[str, dict[str, Any]] = {
    "s3": {"uri": "s3://bucket/folder", "credentialsSecretRef": {"name": "theirs"}},
    "huggingFace": {"repo": "a/b", "credentialsSecretRef": {"name": "hub"}},
    "pvc": {"claim": "disk", "path": "adapter"},
}
OBSERVED = Observed(entry=ENTRY, known_base_models=(BASE,))
RESULT = ImportResult(digest=DIGEST, uri="s3://loraland/there")


def build(kind: str = "s3", **spec: Any) -> Adapter:
    return build_adapter(source={kind: SOURCES[kind]}, **spec)


def verified_of(planned: AdapterPlan) -> tuple[str, str]:
    assert planned.status is not None
    found = next(c for c in planned.status["conditions"] if c["type"] == "ArtifactVerified")
    return f"{found['status']}/{found['reason']}", found.get("message", "")


STATIONS = [
    pytest.param(Import(job=build_child()), "Unknown/Importing", "fetches", id="runs"),
    pytest.param(
        Import(job=build_child(), store_problem="S3 is away"),
        "Unknown/ArtifactStoreUnreachable",
        "S3 is away",
        id="store-away",
    ),
    pytest.param(
        Import(refusal="exceeded quota"), "False/ImportFailed", "exceeded quota", id="refused"
    ),
    pytest.param(
        Import(
            job=build_child("u", "Failed"),
            pods=(build_ended_pod(42, '{"reason": "SourceNotFound", "message": "no such file"}'),),
        ),
        "False/ImportFailed",
        "SourceNotFound: no such file",
        id="failed",
    ),
    pytest.param(
        Import(job=build_child("u", "Complete")),
        "Unknown/Importing",
        "delete Job",
        id="no-artifact",
    ),
    pytest.param(Import(result=RESULT), "Unknown/Importing", DIGEST[:12], id="done"),
]


@pytest.mark.parametrize(("found", "wanted", "text"), STATIONS)
def test_every_station_is_told(found: Import, wanted: str, text: str) -> None:
    """The condition says how far it is, or why it does not go on."""
    condition, message = verified_of(plan(build(), replace(OBSERVED, import_=found), NOW))

    assert (condition, text in message) == (wanted, True), message


@pytest.mark.parametrize("found", [p.values[0] for p in STATIONS])
def test_nothing_is_registered_before_the_import_is_over(found: Any) -> None:
    """Whatever the station, no record is written."""
    planned = plan(build(), replace(OBSERVED, import_=found), NOW)

    assert (planned.publish, planned.withdraw) == (None, False)


def test_job_is_applied_once() -> None:
    """Where there is no Job yet, its manifests are what the plan asks for."""
    applies = (Apply({"kind": "ConfigMap"}), Apply({"kind": "Job"}))

    planned = plan(build(), replace(OBSERVED, import_=Import(applies=applies)), NOW)

    assert planned.apply == applies


def test_imported_digest_is_verified_next() -> None:
    """What the import brought is looked at like any other artifact."""
    planned = plan(build(), replace(OBSERVED, import_=Import(result=RESULT)), NOW)
    adapter = Adapter.model_validate(build().model_dump(by_alias=True) | {"status": planned.status})

    artifact = importing.artifact_of(adapter)

    assert artifact is not None
    assert (artifact.digest, needs_verification(adapter)) == (DIGEST, True)


def test_another_source_is_another_import() -> None:
    """A changed source is fetched anew; other credentials for the same one are not another source."""
    one = build().spec.source
    other = build_adapter(source={"s3": {"uri": "s3://bucket/other"}}).spec.source
    same = build_adapter(source={"s3": {"uri": "s3://bucket/folder"}}).spec.source

    assert imports.source_hash(one) == imports.source_hash(same)
    assert imports.source_hash(one) != imports.source_hash(other)


@pytest.mark.parametrize("kind", SOURCES)
def test_pod_has_the_namespaces_credentials_by_reference(kind: str) -> None:
    """Secrets are named, never read; what it may write to is below its own prefix."""
    adapter = build(kind, importer={"credentialsSecretRef": {"name": "bucket"}})
    _, job = importer_pod.build(
        adapter, ENTRY, image="loraland/trainer", log_format="json", store=StoreConfig(bucket="b")
    )
    container = job["spec"]["template"]["spec"]["containers"][0]
    secrets = {
        variable["name"]: variable["valueFrom"]["secretKeyRef"]["name"]
        for variable in container["env"]
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    expected = {
        "s3": ("SOURCE_AWS_ACCESS_KEY_ID", "theirs"),
        "huggingFace": ("HF_TOKEN", "hub"),
        "pvc": ("AWS_ACCESS_KEY_ID", "bucket"),
    }[kind]

    assert (container["args"], secrets["AWS_SECRET_ACCESS_KEY"]) == (["import"], "bucket")
    assert expected in secrets.items()
    assert len(job["metadata"]["name"]) <= 63
