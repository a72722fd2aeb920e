"""The events of every outcome, in the order in which `kubectl describe` shows them.

Each story is a sequence of worlds; the plan looks at each of them until it changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import goldens
import pytest
from loraland_core import names
from loraland_core.imports import ImportResult
from loraland_core.jobspec import Progress, TerminationMessage
from loraland_core.resources import Adapter, FineTuneJob
from loraland_operator.plan import adapter as adapters
from loraland_operator.plan import finetunejob as jobs
from loraland_operator.plan.adapter import Verification
from loraland_operator.plan.finetunejob import ResultState
from loraland_operator.plan.fleet import Fleet
from loraland_operator.plan.importing import Import
from loraland_operator.plan.steps import Note, Refusal
from operator_objects import (
    BASE,
    DIGEST,
    ENTRY,
    NOW,
    SETTINGS,
    UID,
    build_adapter_object,
    build_beat,
    build_child,
    build_ended_pod,
    build_job_object,
    build_manifest,
    build_pod,
    build_published,
    build_record,
    build_result,
    expected_uri,
)

GOLDEN = Path(__file__).parent / "golden"
Spec = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """A world to look at, and what somebody changed in the spec before."""

    observed: Any
    spec: Spec | None = None
    is_deleted: bool = False


# -- FineTuneJobs

NEW = jobs.Observed(
    settings=SETTINGS, entry=ENTRY, known_base_models=(BASE,), expected_uri=expected_uri()
)
STARTED = replace(NEW, job=build_child(active=1))
PROGRESS = Progress(step=10, total_steps=60, loss=0.5, phase="training")
RUNNING = replace(STARTED, pods=(build_pod(),), progress=PROGRESS)
COMPLETE = replace(NEW, job=build_child(UID, "Complete", succeeded=1))
UPLOADED = replace(COMPLETE, result_state=ResultState.FOUND, result=build_result())
PUBLISHED = replace(UPLOADED, adapter=build_published(job="tickets", uid=UID))
STORE_AWAY = replace(COMPLETE, result_state=ResultState.UNKNOWN, store_problem="S3 does not answer")
SUSPENDED_CHILD = build_child(UID, "Suspended")
SUSPENDED = replace(NEW, job=SUSPENDED_CHILD | {"spec": {"suspend": True}})


def failed(
    condition: str, exit_code: int = 1, said: str = "", *, reason: str = "Error", log: str = ""
) -> jobs.Observed:
    child = build_child(UID, f"Failed/{condition}", failed=1)
    if condition == "DeadlineExceeded":
        child["status"]["conditions"][0]["message"] = (
            "Job was active longer than specified deadline"
        )
    return replace(
        NEW,
        job=child,
        result_state=ResultState.MISSING,
        pods=(build_ended_pod(exit_code, said, reason=reason),),
        log_tail=log,
    )


def said(reason: str, message: str) -> str:
    return TerminationMessage(reason=reason, message=message).to_json()


def disrupted(reason: str, message: str) -> jobs.Observed:
    taken = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    return replace(STARTED, pods=(build_pod("Failed", conditions=[taken]),))


def unschedulable(message: str) -> jobs.Observed:
    waits = {"type": "PodScheduled", "status": "False", "message": message}
    return replace(STARTED, pods=(build_pod("Pending", conditions=[waits]),))


SECOND_ATTEMPT = replace(
    RUNNING,
    job=build_child(active=1, failed=1),
    pods=(
        build_ended_pod(1, said("Unexpected", "CUDA error: device-side assert")),
        build_pod(name="tickets-b"),
    ),
)
REPLACED = replace(STARTED, pods=(build_pod(name="tickets-b"),), progress=PROGRESS)
WAY = (NEW, RUNNING)
END = (UPLOADED, PUBLISHED)

JOB_STORIES: dict[str, Sequence[jobs.Observed | Scene]] = {
    "published": (*WAY, *END),
    "gate failed": (
        *WAY,
        replace(UPLOADED, result=build_result(gate_passed=False)),
    ),
    "name taken by an Adapter made by hand": (
        *WAY,
        replace(UPLOADED, adapter=Adapter.model_validate(build_adapter_object())),
    ),
    "Adapter refused by the API server": (
        *WAY,
        replace(UPLOADED, refusal=Refusal("Adapter", "invalid", "metadata.labels: Invalid value")),
    ),
    "data invalid": (
        *WAY,
        failed("PodFailurePolicy", 42, said("InvalidRow", "rows.jsonl: row 7 is not JSON")),
    ),
    "out of memory on the GPU": (
        *WAY,
        failed("PodFailurePolicy", 43, said("OutOfMemory", "CUDA out of memory: batch of 16")),
    ),
    "killed by the kernel for its memory": (
        *WAY,
        failed("BackoffLimitExceeded", 137, reason="OOMKilled"),
    ),
    "deadline exceeded": (*WAY, failed("DeadlineExceeded", 143)),
    "failed once and tried again": (*WAY, SECOND_ATTEMPT, *END),
    "failed too often": (
        *WAY,
        SECOND_ATTEMPT,
        failed("BackoffLimitExceeded", log="Traceback\nRuntimeError: CUDA error"),
    ),
    "preempted and gone on": (
        *WAY,
        disrupted("PreemptionByScheduler", "preempting to accommodate a higher priority pod"),
        REPLACED,
        *END,
    ),
    "node lost and gone on elsewhere": (
        *WAY,
        disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
        unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu"),
        REPLACED,
        *END,
    ),
    "suspended and resumed": (
        *WAY,
        Scene(SUSPENDED, {"suspend": True}),
        Scene(replace(STARTED, pods=()), {"suspend": False}),
        RUNNING,
        *END,
    ),
    "queued by Kueue": (
        Scene(NEW, {"queueName": "gpu"}),
        Scene(SUSPENDED, {"queueName": "gpu"}),
        Scene(RUNNING, {"queueName": "gpu"}),
        *(Scene(scene, {"queueName": "gpu"}) for scene in END),
    ),
    "missing Secret, then created": (
        replace(NEW, missing_secrets={"spec.output.credentialsSecretRef": "s3-keys"}),
        *WAY,
        *END,
    ),
    "unknown base model": (replace(NEW, entry=None, known_base_models=("mistral-7b",)),),
    "quota exceeded, then raised": (
        replace(NEW, refusal=Refusal("Job", "forbidden", "exceeded quota: gpus")),
        *WAY,
        *END,
    ),
    "pod refused by the API server": (
        replace(NEW, refusal=Refusal("Job", "invalid", "spec.template.spec.tolerations: bad")),
    ),
    "store away when it ended": (*WAY, STORE_AWAY, *END),
    "pod could not reach the store": (
        *WAY,
        failed(
            "BackoffLimitExceeded", 44, said("ArtifactStoreUnreachable", "s3://loraland: timed out")
        ),
    ),
    "ended well without a result": (*WAY, replace(COMPLETE, result_state=ResultState.MISSING)),
    "Job deleted under way": (*WAY, replace(NEW, result_state=ResultState.MISSING)),
}


def tell_job(scenes: Sequence[jobs.Observed | Scene]) -> str:
    obj, lines = build_job_object(), []
    for seconds, scene in enumerate(scenes):
        found = scene if isinstance(scene, Scene) else Scene(scene)
        obj["spec"].update(found.spec or {})
        job = FineTuneJob.model_validate(obj)
        planned = jobs.plan(job, found.observed, NOW + timedelta(seconds=seconds))
        if planned.apply and found.observed.job is None and found.observed.result is None:
            # It is started, and looked at once more.
            world = replace(found.observed, job=build_child())
            planned = jobs.plan(job, world, NOW + timedelta(seconds=seconds))
        if planned.apply:
            continue
        assert planned.status is not None
        obj["status"] = planned.status
        lines += tell(planned.notes)
    return "\n".join(lines)


def tell(notes: Sequence[Note]) -> list[str]:
    told = sorted(notes, key=lambda note: note.order)
    return [
        f"  {n.type:8}{n.reason:26}{n.message}".rstrip().replace("\n", "\n" + " " * 36)
        for n in told
    ]


# -- Adapters

OTHER = build_manifest(resolvedRevision="rev-2").digest
FRESH = adapters.Observed(
    entry=ENTRY,
    known_base_models=(BASE,),
    verification=Verification(manifest=build_manifest()),
    uri=expected_uri(),
)
REGISTERED = replace(FRESH, record=build_record())
SERVED = replace(REGISTERED, fleet=Fleet(beats=(build_beat(),)))
REFUSING = build_beat(
    rejected={"default/tickets": {"digest": DIGEST, "reason": "RankOverLimit", "message": "8 > 4"}}
)
ANOTHER = {"source": {"artifact": {"digest": OTHER}}}
OTHER_URI = "s3://loraland/lab/adapters/default/tickets/other/"
OTHER_FOUND = replace(
    SERVED,
    verification=Verification(manifest=build_manifest(resolvedRevision="rev-2")),
    record=build_record(digest=OTHER, uri=OTHER_URI),
    uri=OTHER_URI,
)
FROM_S3 = {"source": {"s3": {"uri": "s3://theirs/folder"}}}
IMPORT = replace(FRESH, verification=None, import_=Import(job=build_child("u")))
IMPORTED = replace(
    IMPORT, import_=Import(result=ImportResult(digest=DIGEST, uri="s3://loraland/there"))
)
IMPORT_FAILED = replace(
    IMPORT,
    import_=Import(
        job=build_child("u", "Failed/PodFailurePolicy"),
        pods=(build_ended_pod(42, said("SourceNotFound", "s3://theirs/folder is not there")),),
    ),
)
REDIS_AWAY = replace(SERVED, registry_problem="the registry (Redis) does not answer: timed out")


def refused(reason: str, message: str) -> adapters.Observed:
    return replace(FRESH, verification=Verification(refusal=(reason, message)))


ADAPTER_STORIES: dict[str, Sequence[adapters.Observed | Scene]] = {
    "served": (FRESH, REGISTERED, SERVED),
    "imported": (Scene(IMPORT, FROM_S3), Scene(IMPORTED, FROM_S3), Scene(SERVED, FROM_S3)),
    "import failed": (Scene(IMPORT, FROM_S3), Scene(IMPORT_FAILED, FROM_S3)),
    "upload never finished": (refused("ManifestMissing", "there is no manifest.json"),),
    "file changed": (refused("DigestMismatch", "adapter_model.safetensors: has 9 bytes, not 10"),),
    "pickle": (refused("ArtifactInvalid", "adapter_model.bin: pickles are never read"),),
    "trained on another base model": (
        replace(FRESH, verification=Verification(manifest=build_manifest(baseModel="llama"))),
    ),
    "rank over the limit": (
        replace(FRESH, verification=Verification(manifest=build_manifest(rank=128))),
    ),
    "unknown base model": (replace(FRESH, entry=None, known_base_models=("mistral-7b",)),),
    "refused by its replica": (replace(REGISTERED, fleet=Fleet(beats=(REFUSING,))),),
    "replicas gone and back": (SERVED, REGISTERED, SERVED),
    "Redis away and back": (SERVED, REDIS_AWAY, SERVED),
    "S3 away, then back": (
        replace(FRESH, verification=Verification(problem="S3 does not answer")),
        SERVED,
    ),
    "another version, and back": (SERVED, Scene(OTHER_FOUND, ANOTHER), SERVED),
    "a bad version leaves the earlier one served": (
        SERVED,
        Scene(
            replace(
                SERVED, verification=Verification(refusal=("ManifestMissing", "no manifest.json"))
            ),
            ANOTHER,
        ),
    ),
    "retired and taken up again": (
        SERVED,
        Scene(replace(SERVED, record=None), {"enabled": False}),
        Scene(SERVED, {"enabled": True}),
    ),
    "deleted while Redis is away": (SERVED, Scene(REDIS_AWAY, is_deleted=True)),
}


def tell_adapter(scenes: Sequence[adapters.Observed | Scene]) -> str:
    obj, lines = build_adapter_object(), []
    original = obj["spec"]
    for seconds, scene in enumerate(scenes):
        found = scene if isinstance(scene, Scene) else Scene(scene)
        obj["spec"] = original | (found.spec or {})
        if found.is_deleted:
            obj["metadata"]["deletionTimestamp"] = "2026-01-01T13:00:00Z"
        adapter = Adapter.model_validate(obj)
        planned = adapters.plan(adapter, found.observed, NOW + timedelta(seconds=seconds))
        if planned.changes_the_world:
            continue
        assert planned.status is not None
        obj["status"] = planned.status
        lines += tell(planned.notes)
    return "\n".join(lines)


def test_events_of_each_outcome_of_a_job() -> None:
    """A person who reads them knows what happened, and what to do."""
    told = [f"{outcome}:\n{tell_job(scenes)}\n" for outcome, scenes in JOB_STORIES.items()]

    goldens.check(GOLDEN / "finetunejob-events.txt", "\n".join(told))


def test_events_of_each_outcome_of_an_adapter() -> None:
    """The same for what is served."""
    told = [f"{outcome}:\n{tell_adapter(s)}\n" for outcome, s in ADAPTER_STORIES.items()]

    goldens.check(GOLDEN / "adapter-events.txt", "\n".join(told))


@pytest.mark.parametrize("kind", ["finetunejob", "adapter"])
def test_stories_use_known_reasons_and_whole_sentences(kind: str) -> None:
    """Each event has a reason of the list and says something beside it."""
    lines = [
        line.split(maxsplit=2)
        for line in (GOLDEN / f"{kind}-events.txt").read_text().splitlines()
        if line.startswith("  ") and line[2] != " "
    ]

    assert [line for line in lines if line[1] not in set(names.Reason)] == []
    assert [line for line in lines if len(line) < 3] == []
