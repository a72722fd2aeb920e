"""What bad input gets: a refusal by kubectl apply, or a failed condition that says why."""

from collections.abc import Callable
from typing import Any

import pytest
from land import Land, condition, small_job
from loraland_core.store import Store
from loraland_local import platform

Job = dict[str, Any]


def without(job: Job, *path: str) -> Job:
    """Remove what the path leads to."""
    node = job
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    return job


def with_value(job: Job, value: Any, *path: str) -> Job:
    node = job
    for part in path[:-1]:
        node = node.setdefault(part, {})
    node[path[-1]] = value
    return job


REJECTED: list[Any] = [
    pytest.param(
        lambda job: with_value(job, "x", "spec", "flavour"), "spec.flavour", id="unknown-field"
    ),
    pytest.param(
        lambda job: with_value(job, 0, "spec", "lora", "rank"), "spec.lora.rank", id="rank-0"
    ),
    pytest.param(
        lambda job: with_value(job, 2, "spec", "training", "epochs"),
        "spec.training",
        id="epochs-and-max-steps",
    ),
    pytest.param(
        lambda job: with_value(job, {"uri": "s3://rows/x.jsonl"}, "spec", "dataset", "s3"),
        "spec.dataset",
        id="two-sources",
    ),
    pytest.param(
        lambda job: with_value(job, 0.001, "spec", "training", "learningRate"),
        "spec.training.learningRate",
        id="float-for-a-string",
    ),
    pytest.param(
        lambda job: with_value(with_value(job, True, "spec", "suspend"), "q", "spec", "queueName"),
        "spec",
        id="suspend-with-queue-name",
    ),
]


@pytest.mark.parametrize(("spoil", "field"), REJECTED)
def test_apply_is_refused_naming_the_field(
    land: Land, spoil: Callable[[Job], Job], field: str
) -> None:
    """Kubectl says at once what is wrong, and nothing is created."""
    result = land.apply(spoil(small_job("refused")))
    left = land.kubectl("get", "ftj", "refused", "--ignore-not-found", "-o", "name").stdout

    assert (result.returncode, field in result.stderr, left) == (1, True, ""), result.stderr


def s3_rows(job: Job, key: str, *, bucket: str = platform.BUCKET) -> Job:
    """Read the training rows from an object instead of the job itself."""
    dataset = without(job, "spec", "dataset", "inline")["spec"]["dataset"]
    dataset["s3"] = {"uri": f"s3://{bucket}/{key}"}
    dataset["credentialsSecretRef"] = {"name": "loraland-store"}
    return job


FAILED: list[Any] = [
    pytest.param(
        lambda job: s3_rows(job, "x.jsonl", bucket="no-such-bucket"),
        ("BucketNotFound", "no-such-bucket"),
        id="missing-bucket",
    ),
    pytest.param(
        lambda job: s3_rows(job, "rows/absent.jsonl"),
        ("DatasetNotFound", "rows/absent.jsonl"),
        id="missing-key",
    ),
    pytest.param(
        lambda job: s3_rows(job, "rows/empty.jsonl"),
        ("EmptyDataset", "empty.jsonl: holds no rows"),
        id="empty-file",
    ),
    pytest.param(
        lambda job: s3_rows(job, "rows/broken.jsonl"),
        ("InvalidRow", "row 2 is not JSON"),
        id="row-not-json",
    ),
    pytest.param(
        lambda job: with_value(job, "{absent}\n", "spec", "dataset", "prompt"),
        ("ColumnMissing", "no column 'absent'"),
        id="template-names-an-absent-column",
    ),
]


def test_unknown_base_model_is_not_accepted(land: Land) -> None:
    """The condition lists the models that there are, and no pod is made."""
    land.apply(small_job("unknown-model", baseModel="gpt-17"))
    land.wait("finetunejob", "unknown-model", "Accepted=False", timeout_s=60)
    accepted = condition(land.get("finetunejob", "unknown-model"), "Accepted")
    jobs = land.kubectl("get", "job", "unknown-model", "--ignore-not-found", "-o", "name").stdout

    assert (accepted["reason"], platform.BASE_MODEL in accepted["message"], jobs) == (
        "UnknownBaseModel",
        True,
        "",
    )


@pytest.fixture(scope="module")
def rows(store: Store) -> None:
    """Objects that no job can be trained on."""
    store.write("rows/empty.jsonl", b"")
    store.write("rows/broken.jsonl", b'{"message": "a", "answer": "b"}\n{"message": \n')


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(("spoil", "expected"), FAILED)
def test_job_fails_once_and_says_why(
    land: Land,
    request: pytest.FixtureRequest,
    spoil: Callable[[Job], Job],
    expected: tuple[str, str],
) -> None:
    """A condition has reason and message, and the job is not tried again."""
    name = request.node.callspec.id
    applied = land.apply(spoil(small_job(name)))
    assert applied.returncode == 0, applied.stderr
    land.wait("finetunejob", name, "Succeeded=False", timeout_s=180)
    job = land.get("finetunejob", name)
    pods = land.kubectl("get", "pods", "-l", f"loraland.dev/fine-tune-job={name}", "-o", "name")
    failed = condition(job, "Succeeded")
    reason, words = expected

    assert (failed["reason"], words in failed["message"]) == (reason, True), failed
    assert len(pods.stdout.split()) <= 1
