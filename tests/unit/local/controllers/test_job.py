"""Jobs from their first pod to their end, played against a small world of pods."""

import copy
import datetime as dt
import random
from collections.abc import Callable

import pytest
from loraland_local.apiclient import objects, pod_state
from loraland_local.apiclient.objects import Object
from loraland_local.controllers import job, job_pods

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class World:
    """A job, its pods and a clock; does what the plans say, as the API would."""

    def __init__(self, **spec: object) -> None:
        self.now = START
        self.pods: dict[str, Object] = {}
        self.events: list[str] = []
        template = {"metadata": {"labels": {"job-name": "j"}}, "spec": {"restartPolicy": "Never"}}
        template["spec"]["containers"] = [{"name": "c", "image": "i"}]  # type: ignore[assignment]
        defaults = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "template": template}
        self.job: Object = {
            "metadata": {"name": "j", "namespace": "n", "uid": "job-uid"},
            "spec": {**defaults, **spec},
        }
        self._num_created = 0

    def sync(self, rounds: int = 6) -> "World":
        for _ in range(rounds):
            self.plan = job.plan(self.job, list(self.pods.values()), self.pods, self.now)
            if self.plan.status is not None:
                self.job["status"] = copy.deepcopy(self.plan.status)
            for pod in self.plan.release:
                pod["metadata"]["finalizers"] = []
                self._drop_if_gone(pod)
            for pod in self.plan.delete:
                pod["metadata"]["deletionTimestamp"] = objects.format_time(self.now)
            for pod in self.plan.create:
                self._num_created += 1
                pod["metadata"]["uid"] = f"pod-{self._num_created}"
                pod["metadata"]["creationTimestamp"] = objects.format_time(self.now)
                self.pods[objects.name(pod)] = pod
            self.events += [event.reason for event in self.plan.events]
        return self

    def _drop_if_gone(self, pod: Object) -> None:
        if objects.is_deleting(pod) and pod_state.is_terminal(pod):
            self.pods.pop(objects.name(pod), None)

    def pass_time(self, seconds: float) -> "World":
        self.now += dt.timedelta(seconds=seconds)
        return self

    def active(self) -> list[Object]:
        return [pod for pod in self.pods.values() if pod_state.is_active(pod)]

    def end(self, exit_code: int, pod: Object | None = None) -> "World":
        """Let one pod end, the first that runs unless one is given."""
        ended = pod if pod is not None else self.active()[0]
        terminated = {"exitCode": exit_code, "finishedAt": objects.format_time(self.now)}
        ended["status"] = {
            "phase": "Failed" if exit_code else "Succeeded",
            "containerStatuses": [{"name": "c", "state": {"terminated": terminated}}],
        }
        return self

    def end_deleted(self) -> "World":
        for pod in list(self.pods.values()):
            if objects.is_deleting(pod) and not pod_state.is_terminal(pod):
                self.end(143, pod)
        return self

    def condition(self) -> tuple[str, str]:
        """Return the last condition that is true, and its reason."""
        found = [c for c in self.job["status"].get("conditions", []) if c["status"] == "True"]
        return (found[-1]["type"], found[-1]["reason"]) if found else ("", "")

    def number(self, field: str) -> int:
        return int(self.job["status"].get(field, 0))


def test_job_completes_when_its_pod_succeeds() -> None:
    """One pod that ends well completes a job, is counted once and loses its finalizer."""
    world = World().sync()
    world.end(0).sync()

    assert world.condition() == ("Complete", "CompletionsReached")
    assert (world.number("succeeded"), world.number("failed"), world.number("active")) == (1, 0, 0)
    assert world.job["status"]["uncountedTerminatedPods"] == {}
    assert [job_pods.is_tracked(pod) for pod in world.pods.values()] == [False]
    assert world.job["status"]["completionTime"] == objects.format_time(world.now)
    assert world.events == ["Completed"]


def test_job_waits_longer_before_each_retry() -> None:
    """The first retry comes after ten seconds, the second after twenty."""
    world = World().sync()
    waits = []
    for _ in range(2):
        world.end(1).sync()
        waits.append(world.plan.requeue_after_s)
        world.pass_time(waits[-1] or 0).sync()

    assert waits == [10.0, 20.0]
    assert len(world.active()) == 1
    assert world.number("failed") == 2


def test_job_fails_when_its_backoff_limit_is_exceeded() -> None:
    """One failure more than the limit ends the job for good."""
    world = World(backoffLimit=1).sync()
    world.end(1).sync().pass_time(10).sync()
    world.end(1).sync().pass_time(1000).sync()

    assert world.condition() == ("Failed", "BackoffLimitExceeded")
    assert world.number("failed") == 2
    assert world.active() == []
    assert world.events == ["BackoffLimitExceeded"]


def test_job_deletes_its_pods_when_its_deadline_has_passed() -> None:
    """A running pod is deleted at the deadline, and the job fails once it has ended."""
    world = World(activeDeadlineSeconds=30).sync()
    wait_s = world.plan.requeue_after_s
    world.pass_time(30).sync()
    before = world.condition()
    world.end_deleted().sync()

    assert wait_s == 30.0
    assert before == ("FailureTarget", "DeadlineExceeded")
    assert world.condition() == ("Failed", "DeadlineExceeded")
    assert world.number("failed") == 1


def rules(*listed: Object) -> Object:
    return {"podFailurePolicy": {"rules": list(listed)}, "podReplacementPolicy": "Failed"}


@pytest.mark.parametrize(
    ("rule", "exit_code", "expected"),
    [
        pytest.param(
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42, 43]}},
            42,
            ("Failed", "PodFailurePolicy", 1, 0),
            id="fail-job",
        ),
        pytest.param(
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42, 43]}},
            44,
            ("", "", 1, 0),
            id="another-code-is-retried-later",
        ),
        pytest.param(
            {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [1]}},
            44,
            ("Failed", "PodFailurePolicy", 1, 0),
            id="not-in",
        ),
        pytest.param(
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [143]}},
            143,
            ("", "", 0, 1),
            id="ignore-is-replaced-at-once",
        ),
        pytest.param(
            {"action": "Count", "onExitCodes": {"operator": "In", "values": [7]}},
            7,
            ("", "", 1, 0),
            id="count",
        ),
        pytest.param(
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": "other", "operator": "In", "values": [7]},
            },
            7,
            ("", "", 1, 0),
            id="of-another-container",
        ),
    ],
)
def test_pod_failure_policy_decides(
    rule: Object, exit_code: int, expected: tuple[str, str, int, int]
) -> None:
    """The first matching rule says whether a failure ends the job, counts, or is ignored."""
    world = World(**rules(rule)).sync()
    world.end(exit_code).sync()

    found = (*world.condition(), world.number("failed"), len(world.active()))
    assert found == expected


def test_pod_failure_policy_names_pod_and_rule() -> None:
    """The message of the condition reads as Kubernetes words it."""
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    world = World(**rules(rule)).sync()
    name = objects.name(world.active()[0])
    world.end(42).sync()

    expected = (
        f"Container c for pod n/{name} failed with exit code 42 matching FailJob rule at index 0"
    )
    assert world.job["status"]["conditions"][-1]["message"] == expected


def test_pod_failure_policy_matches_pod_conditions() -> None:
    """A disruption can be ignored by the pod's condition."""
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    world = World(**rules(rule)).sync()
    pod = world.active()[0]
    world.end(137, pod)
    pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
    world.sync()

    assert (world.number("failed"), len(world.active())) == (0, 1)


def test_suspended_job_loses_its_pods_without_a_failure() -> None:
    """Suspending deletes pods and counts nothing; resuming starts the clock again."""
    world = World(activeDeadlineSeconds=100).sync()
    world.job["spec"]["suspend"] = True
    world.pass_time(50).sync().end_deleted().sync()
    suspended = (world.condition(), world.number("failed"), len(world.active()))
    world.job["spec"]["suspend"] = False
    world.pass_time(500).sync()

    assert suspended == (("Suspended", "JobSuspended"), 0, 0)
    assert world.job["status"]["startTime"] == objects.format_time(world.now)
    assert len(world.active()) == 1
    assert world.events == ["Suspended", "Resumed"]


def test_indexed_job_runs_each_index_once() -> None:
    """Indexes are handed out in order, a failed one again, and completed ones are written down."""
    world = World(completionMode="Indexed", completions=4, parallelism=2).sync()
    first = sorted(job_pods.completion_index(pod) for pod in world.active())
    world.end(0).sync().end(1).sync().pass_time(10).sync()
    while world.active():
        world.end(0).sync()

    assert first == [0, 1]
    assert world.condition()[0] == "Complete"
    assert world.job["status"]["completedIndexes"] == "0-3"
    assert (world.number("succeeded"), world.number("failed")) == (4, 1)


def test_indexed_pods_know_their_index() -> None:
    """Host name, annotation, label and variable carry the completion index."""
    pod = World(completionMode="Indexed", completions=1).sync().active()[0]

    source = pod["spec"]["containers"][0]["env"][0]
    path = "metadata.labels['batch.kubernetes.io/job-completion-index']"
    assert pod["spec"]["hostname"] == "j-0"
    assert objects.annotations(pod)[job_pods.INDEX_KEY] == "0"
    assert source["name"] == "JOB_COMPLETION_INDEX"
    assert source["valueFrom"]["fieldRef"]["fieldPath"] == path


def test_parallelism_limits_what_runs_at_once() -> None:
    """A job of five completions with two at a time ends with exactly five pods."""
    world = World(completions=5, parallelism=2).sync()
    highest = 0
    while world.active():
        highest = max(highest, len(world.active()))
        world.end(0).sync()

    assert (highest, len(world.pods), world.number("succeeded")) == (2, 5, 5)


def test_lower_parallelism_removes_pods_uncounted() -> None:
    """Pods that are too many are deleted and are no failures."""
    world = World(completions=5, parallelism=3).sync()
    world.job["spec"]["parallelism"] = 1
    world.sync().end_deleted().sync()

    assert (len(world.active()), world.number("failed")) == (1, 0)


@pytest.mark.parametrize(
    ("policy", "expected_active"),
    [
        pytest.param("TerminatingOrFailed", 1, id="replaced-while-terminating"),
        pytest.param("Failed", 0, id="replaced-when-ended"),
    ],
)
def test_replacement_policy_decides_when_a_deleted_pod_is_replaced(
    policy: str, expected_active: int
) -> None:
    """A pod that somebody deletes is replaced at once, or only when it has ended."""
    world = World(podReplacementPolicy=policy).sync()
    world.active()[0]["metadata"]["deletionTimestamp"] = objects.format_time(world.now)
    world.pass_time(60).sync()

    assert len(world.active()) == expected_active


def test_restarts_count_towards_the_limit_when_pods_restart_containers() -> None:
    """With restartPolicy OnFailure, the containers' restarts use up the backoff limit."""
    world = World(backoffLimit=2).sync()
    world.job["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    restarted = [{"name": "c", "restartCount": 2}]
    world.active()[0]["status"] = {"phase": "Running", "containerStatuses": restarted}
    world.sync().end_deleted().sync()

    assert world.condition() == ("Failed", "BackoffLimitExceeded")


@pytest.mark.parametrize("num_steps", range(1, 6))
def test_pods_are_counted_once_when_the_controller_dies_between_steps(num_steps: int) -> None:
    """Whatever step was the last before a crash, the numbers come out right."""
    world = World(backoffLimit=9).sync()
    world.end(1)
    for _ in range(num_steps):
        plan = job.plan(world.job, list(world.pods.values()), world.pods, world.now)
        if plan.status is not None:
            world.job["status"] = copy.deepcopy(plan.status)
        if num_steps % 2:
            for pod in plan.release:
                pod["metadata"]["finalizers"] = []
    world.sync().pass_time(10).sync()
    world.end(0).sync()

    assert (world.number("failed"), world.number("succeeded")) == (1, 1)


@pytest.mark.parametrize("seed", range(30))
def test_job_keeps_its_promises_whatever_happens(seed: int) -> None:
    """Over a random life, never too many pods run, and each end is counted exactly once."""
    chance = random.Random(seed)  # noqa: S311 repeatable, not secret
    world = World(completions=6, parallelism=3, backoffLimit=99).sync()
    num_failures = 0
    for _ in range(80):
        match chance.choice(("succeed", "fail", "wait", "suspend")):
            case "succeed" if world.active():
                world.end(0, chance.choice(world.active()))
            case "fail" if world.active():
                world.end(1, chance.choice(world.active()))
                num_failures += 1
            case "suspend" if chance.random() < 0.3:
                world.job["spec"]["suspend"] = not world.job["spec"].get("suspend")
            case _:
                world.pass_time(chance.choice((1, 30, 700)))
        world.sync(rounds=chance.randint(1, 3)).end_deleted()
        assert len(world.active()) <= 3
    world.job["spec"]["suspend"] = False
    while not job.is_finished(world.job):
        world.pass_time(700).sync()
        for pod in world.active():
            world.end(0, pod)

    assert (world.number("succeeded"), world.number("failed")) == (6, num_failures)


@pytest.mark.parametrize(
    ("text", "indexes"),
    [
        pytest.param("", set(), id="none"),
        pytest.param("3", {3}, id="one"),
        pytest.param("0,1", {0, 1}, id="two-neighbours-stay-a-pair"),
        pytest.param("0-2,5,7-9", {0, 1, 2, 5, 7, 8, 9}, id="ranges"),
    ],
)
def test_indexes_read_as_they_are_written(text: str, indexes: set[int]) -> None:
    """Completed indexes survive being written and read."""
    assert (job_pods.format_indexes(indexes), job_pods.parse_indexes(text)) == (text, indexes)


def test_deleted_job_lets_go_of_its_pods_and_deletes_none() -> None:
    """Whether pods go along with their job or stay is for the garbage collector to decide."""
    world = World().sync()
    world.job["metadata"]["deletionTimestamp"] = objects.format_time(world.now)
    world.sync()

    assert [job_pods.is_tracked(pod) for pod in world.active()] == [False]


def test_repeated_decision_names_the_same_pod() -> None:
    """A controller that forgot what it created chooses the same name, and so creates no second."""
    world = World()
    build: Callable[[], Object] = lambda: job.plan(world.job, [], set(), START).create[0]  # noqa: E731

    assert objects.name(build()) == objects.name(build())
