"""The plan of a FineTuneJob for every outcome."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from loraland_core.jobspec import Progress, TerminationMessage
from loraland_core.resources import FineTuneJob
from loraland_operator.plan.finetunejob import Observed, ResultState, plan
from loraland_operator.plan.steps import Plan, Refusal
from operator_objects import (
    BASE,
    DIGEST,
    ENTRY,
    NOW,
    SETTINGS,
    UID,
    build_child,
    build_ended_pod,
    build_job,
    build_job_object,
    build_pod,
    build_published,
    build_result,
    expected_uri,
)

READY_TO_START = Observed(
    settings=SETTINGS, entry=ENTRY, known_base_models=(BASE,), expected_uri=expected_uri()
)
RUNNING = replace(READY_TO_START, job=build_child(active=1), pods=(build_pod(),))
COMPLETE = replace(READY_TO_START, job=build_child(UID, "Complete", succeeded=1))
FOUND = replace(COMPLETE, result_state=ResultState.FOUND, result=build_result())
PUBLISHED = replace(FOUND, adapter=build_published(job="tickets", uid=UID))
FAILED = replace(
    READY_TO_START,
    job=build_child(UID, "Failed/BackoffLimitExceeded", failed=4),
    result_state=ResultState.MISSING,
)


def failed_with(exit_code: int, message: str = "", **changes: Any) -> Observed:
    return replace(FAILED, pods=(build_ended_pod(exit_code, message, **changes),))


def conditions_of(planned: Plan) -> dict[str, str]:
    assert planned.status is not None
    return {c["type"]: f"{c['status']}/{c['reason']}" for c in planned.status["conditions"]}


def after(job: FineTuneJob, planned: Plan) -> FineTuneJob:
    """Return the job as it is once the planned status is written."""
    document = job.model_dump(by_alias=True) | {"status": planned.status}
    return FineTuneJob.model_validate(document)


SAID_BAD_ROW = TerminationMessage(reason="InvalidRow", message="row 7 is not JSON").to_json()

ENDINGS = [
    pytest.param(PUBLISHED, "Succeeded", "True/Completed", "True/Published", id="published"),
    pytest.param(
        replace(COMPLETE, result_state=ResultState.FOUND, result=build_result(gate_passed=False)),
        "Succeeded",
        "True/Completed",
        "False/GateFailed",
        id="gate-failed",
    ),
    pytest.param(
        replace(FOUND, adapter=build_published(job="later", uid="z", created=NOW.isoformat())),
        "Succeeded",
        "True/Completed",
        "False/NameTaken",
        id="name-taken-by-newer-job",
    ),
    pytest.param(
        replace(FOUND, refusal=Refusal("Adapter", "conflict", "kubectl owns .spec.source")),
        "Succeeded",
        "True/Completed",
        "False/NameTaken",
        id="name-taken-by-field-owner",
    ),
    pytest.param(
        replace(FOUND, refusal=Refusal("Adapter", "invalid", "labels: Invalid value")),
        "Succeeded",
        "True/Completed",
        "False/PublishRejected",
        id="publish-rejected",
    ),
    pytest.param(
        replace(PUBLISHED, job=None), "Succeeded", "True/Completed", "True/Published", id="job-gone"
    ),
    pytest.param(
        replace(FAILED, result_state=ResultState.FOUND, result=build_result(gate_passed=False)),
        "Succeeded",
        "True/Completed",
        "False/GateFailed",
        id="failed-after-its-result",
    ),
    pytest.param(
        replace(COMPLETE, result_state=ResultState.MISSING),
        "Failed",
        "False/ResultMissing",
        "False/NoArtifact",
        id="result-missing",
    ),
    pytest.param(
        failed_with(42, SAID_BAD_ROW), "Failed", "False/InvalidRow", "False/NoArtifact", id="42"
    ),
    pytest.param(
        failed_with(42), "Failed", "False/InvalidJob", "False/NoArtifact", id="42-without-word"
    ),
    pytest.param(failed_with(43), "Failed", "False/OutOfMemory", "False/NoArtifact", id="43"),
    pytest.param(
        failed_with(137, reason="OOMKilled"),
        "Failed",
        "False/OutOfMemory",
        "False/NoArtifact",
        id="oom-killed",
    ),
    pytest.param(
        failed_with(44), "Failed", "False/ArtifactStoreUnreachable", "False/NoArtifact", id="44"
    ),
    pytest.param(
        failed_with(1, "Traceback"),
        "Failed",
        "False/BackoffLimitExceeded",
        "False/NoArtifact",
        id="crash",
    ),
    pytest.param(
        replace(failed_with(143), job=build_child(UID, "Failed/DeadlineExceeded", failed=1)),
        "Failed",
        "False/DeadlineExceeded",
        "False/NoArtifact",
        id="deadline",
    ),
    pytest.param(
        replace(FOUND, result=build_result(uid="somebody-else")),
        "Failed",
        "False/ArtifactInvalid",
        "False/NoArtifact",
        id="foreign-result",
    ),
    pytest.param(
        replace(READY_TO_START, refusal=Refusal("Job", "invalid", "resources: Invalid value")),
        "Failed",
        "False/InvalidSpec",
        "False/NoArtifact",
        id="pod-refused",
    ),
]


@pytest.mark.parametrize(("observed", "phase", "succeeded", "published"), ENDINGS)
def test_job_ends(observed: Observed, phase: str, succeeded: str, published: str) -> None:
    """Each way a run can end has its phase, its reason and a completion time."""
    planned = plan(build_job(), observed, NOW)

    assert planned.status is not None
    assert planned.apply == ()
    assert phase == planned.status["phase"]
    found = conditions_of(planned)
    assert (succeeded, published) == (found["Succeeded"], found["AdapterPublished"])
    assert planned.status["completionTime"] == "2026-01-01T12:00:00Z"
    assert ("failure" in planned.status) == (phase == "Failed")


@pytest.mark.parametrize(("observed", "phase", "succeeded", "published"), ENDINGS)
def test_ended_job_is_left_alone(
    observed: Observed, phase: str, succeeded: str, published: str
) -> None:
    """After a terminal condition nothing is run or written again, whatever became of the Job."""
    job = build_job()
    ended = after(job, plan(job, observed, NOW))

    planned = plan(ended, READY_TO_START, NOW + timedelta(days=1))

    assert planned == Plan()


REJECTIONS = [
    pytest.param(
        build_job(baseModel="llama"), replace(READY_TO_START, entry=None), "UnknownBaseModel", BASE
    ),
    pytest.param(build_job(lora={"rank": 128}), READY_TO_START, "RankOverLimit", "64"),
    pytest.param(
        build_job(),
        replace(READY_TO_START, missing_secrets={"spec.output.credentialsSecretRef": "keys"}),
        "SecretNotFound",
        "'keys'",
    ),
    pytest.param(
        build_job(),
        replace(READY_TO_START, refusal=Refusal("Job", "forbidden", "exceeded quota: gpu")),
        "Forbidden",
        "exceeded quota",
    ),
]


@pytest.mark.parametrize(("job", "observed", "reason", "said"), REJECTIONS)
def test_job_waits_for_what_somebody_can_cure(
    job: FineTuneJob, observed: Observed, reason: str, said: str
) -> None:
    """What can come right without another job is said, and looked at again."""
    planned = plan(job, observed, NOW)

    assert planned.status is not None
    accepted = planned.status["conditions"][0]
    assert ("Accepted", "False", reason) == (
        accepted["type"],
        accepted["status"],
        accepted["reason"],
    )
    assert said in accepted["message"]
    assert planned.status["phase"] == "Rejected"
    assert planned.requeue_after_s
    assert conditions_of(planned)["Succeeded"] == "Unknown/Pending"


def test_start_applies_the_job_file_before_the_job() -> None:
    """The pod mounts the ConfigMap, so it comes first; an operator that dies between goes on."""
    planned = plan(build_job(), READY_TO_START, NOW)

    assert [a.manifest["kind"] for a in planned.apply] == ["ConfigMap", "Job"]
    assert [a.manifest["metadata"]["name"] for a in planned.apply] == ["tickets-job", "tickets"]


def test_several_nodes_get_a_service() -> None:
    """Pods that train together find each other by name."""
    planned = plan(build_job(numNodes=2), READY_TO_START, NOW)

    assert [a.manifest["kind"] for a in planned.apply] == ["ConfigMap", "Service", "Job"]


def test_large_inline_rows_are_refused() -> None:
    """Rows that no ConfigMap can hold are answered with the way out."""
    rows = {"inline": {"rows": "x" * 999_000, "evaluationRows": "y" * 100_000}}
    job = build_job(dataset=rows | {"prompt": "{a}", "completion": "{b}"})

    planned = plan(job, READY_TO_START, NOW)

    assert conditions_of(planned)["Accepted"] == "False/InvalidSpec"
    assert conditions_of(planned)["Succeeded"] == "False/InvalidSpec"


SIGHTS = [
    pytest.param(RUNNING, "Running", "True/Training", id="running"),
    pytest.param(replace(RUNNING, pods=()), "Pending", "False/WaitingForPod", id="no-pod-yet"),
    pytest.param(
        replace(
            RUNNING,
            pods=(
                build_pod(
                    "Pending",
                    conditions=[
                        {"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}
                    ],
                ),
            ),
        ),
        "Pending",
        "False/Unschedulable",
        id="unschedulable",
    ),
    pytest.param(
        replace(COMPLETE, result_state=ResultState.UNKNOWN, store_problem="S3 is away"),
        "Publishing",
        "Unknown/Pending",
        id="store-away-at-the-end",
    ),
    pytest.param(
        replace(READY_TO_START, job=build_child("another-uid")),
        "Pending",
        "False/WaitingForPod",
        id="predecessor-goes",
    ),
]


@pytest.mark.parametrize(("observed", "phase", "running"), SIGHTS)
def test_job_on_its_way(observed: Observed, phase: str, running: str) -> None:
    """While a run goes on the status says what is waited for, and it is looked at again."""
    planned = plan(build_job(), observed, NOW)

    assert planned.status is not None
    assert (phase, running) == (planned.status["phase"], conditions_of(planned)["Running"])
    assert planned.requeue_after_s
    assert "completionTime" not in planned.status


def test_lost_job_without_result_fails() -> None:
    """A Job that somebody deleted is not started again: it may have cost hours."""
    job = build_job()
    begun = after(job, plan(job, RUNNING, NOW))

    planned = plan(begun, replace(READY_TO_START, result_state=ResultState.MISSING), NOW)

    assert planned.apply == ()
    assert conditions_of(planned)["Succeeded"] == "False/JobLost"


def test_lost_job_waits_while_the_store_is_away() -> None:
    """Only the store knows how a vanished Job ended."""
    job = build_job()
    begun = after(job, plan(job, RUNNING, NOW))
    observed = replace(READY_TO_START, result_state=ResultState.UNKNOWN, store_problem="S3 is away")

    planned = plan(begun, observed, NOW)

    assert conditions_of(planned)["Uploaded"] == "Unknown/ArtifactStoreUnreachable"
    assert planned.requeue_after_s


def test_result_is_published_without_force() -> None:
    """The Adapter is applied under the publisher's name, and nobody's fields are taken."""
    planned = plan(build_job(), FOUND, NOW)

    (apply,) = planned.apply
    assert (apply.manager, apply.force) == ("loraland-publisher", False)
    assert apply.manifest["spec"]["source"]["artifact"]["digest"] == DIGEST
    assert "ownerReferences" not in apply.manifest["metadata"]


def test_scores_are_decimal_strings() -> None:
    """Status shows base and tuned score, and the finished progress."""
    planned = plan(build_job(), PUBLISHED, NOW)

    assert planned.status is not None
    assert planned.status["metrics"] == [
        {"name": "JsonFieldMatch", "base": "0.0500", "tuned": "0.9000"}
    ]
    assert tuple(planned.status["progress"][k] for k in ("step", "percent", "loss")) == (
        60,
        100,
        "0.2500",
    )


def test_progress_is_shown() -> None:
    """The pod's report becomes whole numbers and decimal strings."""
    report = Progress(
        step=15,
        total_steps=60,
        loss=1.23456,
        tokens_per_second=99.6,
        eta_seconds=30.2,
        phase="training",
    )

    planned = plan(build_job(), replace(RUNNING, progress=report), NOW)

    assert planned.status is not None
    assert planned.status["progress"] == {
        "step": 15,
        "totalSteps": 60,
        "percent": 25,
        "loss": "1.2346",
        "tokensPerSecond": 100,
        "etaSeconds": 30,
        "phase": "training",
    }


@pytest.mark.parametrize(
    ("spec", "child_spec", "changed"),
    [
        pytest.param({"suspend": True}, {"suspend": False}, {"suspend": True}, id="suspend"),
        pytest.param({"suspend": False}, {"suspend": True}, {"suspend": False}, id="resume"),
        pytest.param(
            {"activeDeadlineSeconds": 60},
            {"suspend": False},
            {"activeDeadlineSeconds": 60, "suspend": False},
            id="deadline",
        ),
        pytest.param(
            {},
            {"suspend": False, "activeDeadlineSeconds": 60},
            {"suspend": False},
            id="deadline-taken-away",
        ),
        pytest.param({}, {"suspend": False}, None, id="nothing-to-change"),
        pytest.param({"queueName": "team"}, {"suspend": True}, None, id="kueue-decides"),
    ],
)
def test_lifecycle_of_a_running_job(
    spec: dict[str, Any], child_spec: dict[str, Any], changed: dict[str, Any] | None
) -> None:
    """Suspension and deadline are changed on the Job that is there; its template never is."""
    child = build_child(active=1)
    child["spec"] = child_spec

    planned = plan(build_job(**spec), replace(RUNNING, job=child), NOW)

    assert changed == (planned.apply[0].manifest["spec"] if planned.apply else None)


def test_suspended_job_says_so_and_resumes() -> None:
    """Suspended goes true with the Job's own condition, and false with a word when it goes on."""
    job = build_job(suspend=True)
    suspended = plan(job, replace(RUNNING, job=build_child(UID, "Suspended"), pods=()), NOW)
    resumed = plan(after(build_job(suspend=False), suspended), RUNNING, NOW)

    assert conditions_of(suspended)["Suspended"] == "True/Suspended"
    assert conditions_of(resumed)["Suspended"] == "False/Resumed"


@pytest.mark.parametrize(
    ("ttl_s", "age_s", "delete", "requeue_after_s"),
    [
        pytest.param(None, 1e6, False, None, id="kept-for-ever"),
        pytest.param(600, 60, False, 541, id="not-yet"),
        pytest.param(600, 600, True, None, id="due"),
        pytest.param(0, 0, True, None, id="at-once"),
    ],
)
def test_ttl_deletes_the_job_itself(
    ttl_s: int | None, age_s: float, delete: bool, requeue_after_s: float | None
) -> None:
    """The FineTuneJob goes when its time is over, not only its pods."""
    spec = {} if ttl_s is None else {"ttlSecondsAfterFinished": ttl_s}
    job = build_job(**spec)
    ended = after(job, plan(job, PUBLISHED, NOW))

    planned = plan(ended, READY_TO_START, NOW + timedelta(seconds=age_s))

    assert (delete, requeue_after_s) == (planned.delete_self, planned.requeue_after_s)


def test_deleted_job_is_left_to_the_garbage_collector() -> None:
    """A job that goes starts nothing."""
    obj = build_job_object()
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T11:59:00Z"

    assert Plan() == plan(FineTuneJob.model_validate(obj), READY_TO_START, NOW)


STORIES = [
    pytest.param(
        [RUNNING, FOUND, PUBLISHED],
        ["SpecAccepted", "Training", "ArtifactUploaded", "Published", "Completed"],
        id="published",
    ),
    pytest.param(
        [RUNNING, replace(FOUND, result=build_result(gate_passed=False))],
        ["SpecAccepted", "Training", "ArtifactUploaded", "!GateFailed", "Completed"],
        id="gate-failed",
    ),
    pytest.param(
        [
            RUNNING,
            replace(RUNNING, job=build_child(active=1, failed=1), pods=(build_ended_pod(1),)),
            failed_with(43),
        ],
        ["SpecAccepted", "Training", "!Retrying", "!OutOfMemory"],
        id="failed-after-retry",
    ),
    pytest.param(
        [replace(READY_TO_START, missing_secrets={"spec.output": "keys"}), RUNNING],
        ["!SecretNotFound", "SpecAccepted", "Training"],
        id="secret-comes-later",
    ),
]


@pytest.mark.parametrize(("sights", "story"), STORIES)
def test_events_tell_the_story(sights: list[Observed], story: list[str]) -> None:
    """``kubectl describe`` reads like what happened; ``!`` marks warnings."""
    job, told = build_job(), []
    for observed in sights:
        planned = plan(job, observed, NOW)
        if not planned.apply:
            told += [("!" if n.type == "Warning" else "") + n.reason for n in planned.notes]
            job = after(job, planned)

    assert story == told


def test_same_world_gives_the_same_status() -> None:
    """A second look changes nothing, so nothing is written and no event is told twice."""
    job = build_job()
    first = plan(job, RUNNING, NOW)
    second = plan(after(job, first), RUNNING, NOW + timedelta(hours=1))

    assert first.status == second.status
    assert second.notes == ()
