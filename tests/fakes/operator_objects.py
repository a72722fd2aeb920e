"""Objects for tests of the operator: FineTuneJobs, Adapters, Jobs and pods as the API shows them."""

from datetime import UTC, datetime
from typing import Any

from loraland_core import artifacts, names
from loraland_core.artifacts import File, Manifest, Result
from loraland_core.catalogue import BaseModelEntry
from loraland_core.keys import AdapterRecord, Heartbeat
from loraland_core.resources import Adapter, FineTuneJob
from loraland_core.store import StoreConfig
from loraland_operator.plan.finetunejob import Settings

Object = dict[str, Any]

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
CREATED = "2026-01-01T11:00:00Z"
UID = "11111111-2222-3333-4444-555555555555"
BASE = "smollm2-135m-instruct"
STORE = StoreConfig(bucket="loraland", prefix="lab", endpoint_url="http://127.0.0.1:9000")
SETTINGS = Settings(image="loraland/trainer", log_format="json", store=STORE)
ENTRY = BaseModelEntry.model_validate({"source": {"embedded": BASE}, "limits": {"maxRank": 64}})

FILES = [
    File(path=path, size_bytes=10, sha256=sha * 64)
    for path, sha in zip(artifacts.SERVED_FILES, "abc", strict=True)
]
DIGEST = artifacts.digest(BASE, "rev-1", FILES)


def build_job_object(name: str = "tickets", *, uid: str = UID, **spec: Any) -> Object:
    """Return a FineTuneJob as somebody applied it."""
    defaults = {
        "baseModel": BASE,
        "dataset": {"inline": {"rows": "{}\n"}, "prompt": "{a}", "completion": "{b}"},
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.FINE_TUNE_JOB,
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid,
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": CREATED,
        },
        "spec": defaults | spec,
    }


def build_job(name: str = "tickets", *, uid: str = UID, **spec: Any) -> FineTuneJob:
    return FineTuneJob.model_validate(build_job_object(name, uid=uid, **spec))


def build_child(uid: str = UID, *conditions: str, **status: Any) -> Object:
    """Return the batch/v1 Job of a FineTuneJob; conditions as ``Type`` or ``Type/Reason``."""
    found = [
        {"type": type_, "status": "True", "reason": reason, "message": f"Job: {reason}"}
        for type_, _, reason in (c.partition("/") for c in conditions)
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "tickets",
            "namespace": "default",
            "uid": "job-uid",
            "resourceVersion": "5",
            "labels": {names.LABEL_JOB: "tickets", names.LABEL_JOB_UID: uid},
        },
        "spec": {"suspend": False},
        "status": {"startTime": "2026-01-01T11:30:00Z", "conditions": found, **status},
    }


def build_pod(phase: str = "Running", *, name: str = "tickets-a", **status: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-of-{name}",
            "labels": {names.LABEL_JOB: "tickets", names.LABEL_JOB_UID: UID},
        },
        "status": {"phase": phase, "podIP": "127.0.0.9", **status},
    }


def build_ended_pod(
    exit_code: int, message: str = "", *, reason: str = "Error", at: str = "2026-01-01T11:40:00Z"
) -> Object:
    """Return a pod whose training container ended."""
    ended = {"exitCode": exit_code, "message": message, "reason": reason, "finishedAt": at}
    return build_pod("Failed", containerStatuses=[{"state": {"terminated": ended}}])


def build_result(*, uid: str = UID, name: str = "tickets", gate_passed: bool = True) -> Result:
    return Result.model_validate(
        {
            "jobUid": uid,
            "uri": expected_uri(name),
            "digest": DIGEST,
            "sizeBytes": 30,
            "metrics": [{"name": "JsonFieldMatch", "base": 0.05, "tuned": 0.9}],
            "numEvaluated": 64,
            "gatePassed": gate_passed,
            "gateMessage": "" if gate_passed else "JsonFieldMatch 0.9000 is below 0.95",
            "createdAt": "2026-01-01T11:50:00Z",
            "finalLoss": 0.25,
            "totalSteps": 60,
        }
    )


def expected_uri(name: str = "tickets") -> str:
    prefix = artifacts.adapter_prefix("default", name, DIGEST)
    return f"s3://{STORE.bucket}/{STORE.prefix}/{prefix}"


def build_manifest(**changes: Any) -> Manifest:
    return Manifest.model_validate(
        {
            "baseModel": BASE,
            "resolvedRevision": "rev-1",
            "trainingPrecision": "nf4",
            "rank": 8,
            "alpha": 16.0,
            "targetModules": ["q_proj", "v_proj"],
            "dtype": "float32",
            "files": [f.model_dump(by_alias=True) for f in FILES],
            "createdAt": "2026-01-01T11:50:00Z",
        }
        | changes
    )


def build_adapter_object(name: str = "tickets", **spec: Any) -> Object:
    """Return an Adapter as somebody applied it."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.ADAPTER,
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-of-{name}",
            "generation": 1,
            "resourceVersion": "7",
            "creationTimestamp": CREATED,
            "finalizers": [names.FINALIZER],
        },
        "spec": {"baseModel": BASE, "source": {"artifact": {"digest": DIGEST}}} | spec,
    }


def build_adapter(name: str = "tickets", **spec: Any) -> Adapter:
    return Adapter.model_validate(build_adapter_object(name, **spec))


def build_published(*, job: str, uid: str, created: str = CREATED, **spec: Any) -> Adapter:
    """Return the Adapter ``tickets`` as a job published it."""
    obj = build_adapter_object(**spec)
    obj["metadata"]["labels"] = {names.LABEL_JOB: job, names.LABEL_JOB_UID: uid}
    obj["metadata"]["annotations"] = {names.ANNOTATION_JOB_CREATED: created}
    return Adapter.model_validate(obj)


def build_record(*, revision: int = 100, **changes: Any) -> AdapterRecord:
    return AdapterRecord.model_validate(
        {
            "baseModel": BASE,
            "digest": DIGEST,
            "uri": expected_uri(),
            "sizeBytes": 30,
            "rank": 8,
            "targetModules": ["q_proj", "v_proj"],
            "tenants": ["default"],
            "revision": revision,
        }
        | changes
    )


def build_beat(replica: str = "r1", *, applied: int = 100, **changes: Any) -> Heartbeat:
    return Heartbeat.model_validate(
        {
            "replica": replica,
            "address": "127.0.0.1:8500",
            "baseModel": BASE,
            "maxRank": 64,
            "numSlots": 8,
            "numFreeSlots": 8,
            "queueDepth": 0,
            "appliedRevision": applied,
        }
        | changes
    )
