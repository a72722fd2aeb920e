"""Deployments: rollouts step by step, against sets whose pods become ready when the test says."""

import copy
import datetime as dt

import pytest
from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object
from loraland_local.controllers import deployment

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class World:
    """One deployment and its ReplicaSets; pods exist at once and are ready on request."""

    def __init__(self, replicas: int = 4, **spec: object) -> None:
        self.now = START
        self.sets: dict[str, Object] = {}
        self.lowest_available = 0
        self.highest_total = 0
        template = {
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]},
        }
        self.deployment: Object = {
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "a"}},
                "template": template,
                **spec,
            },
        }

    def sync(self, *, with_ready: bool = True, rounds: int = 20) -> "World":
        self.lowest_available = 10**6
        for _ in range(rounds):
            plan = deployment.plan(self.deployment, list(self.sets.values()), self.now)
            for body in (*plan.create, *plan.replace):
                self.sets[objects.name(body)] = copy.deepcopy(body)
            for body in plan.delete:
                del self.sets[objects.name(body)]
            if plan.revision is not None:
                self.deployment["metadata"].setdefault("annotations", {})[deployment.REVISION] = (
                    plan.revision
                )
            if plan.status is not None:
                self.deployment["status"] = plan.status
            self._run_pods(with_ready=with_ready)
            self.requeue_after_s = plan.requeue_after_s
        return self

    def _run_pods(self, *, with_ready: bool) -> None:
        for found in self.sets.values():
            wanted = found["spec"]["replicas"]
            before = (found.get("status") or {}).get("availableReplicas", 0)
            available = wanted if with_ready else min(before, wanted)
            found["status"] = {"replicas": wanted, "availableReplicas": available}
            found["status"]["readyReplicas"] = available
        available = sum(found["status"]["availableReplicas"] for found in self.sets.values())
        self.lowest_available = min(self.lowest_available, available)
        total = sum(found["spec"]["replicas"] for found in self.sets.values())
        self.highest_total = max(self.highest_total, total)

    def set_image(self, image: str) -> "World":
        self.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image
        self.deployment["metadata"]["generation"] += 1
        return self

    def sizes(self) -> dict[str, int]:
        """Return sizes by image."""
        return {
            found["spec"]["template"]["spec"]["containers"][0]["image"]: found["spec"]["replicas"]
            for found in self.sets.values()
        }

    def progressing(self) -> tuple[str, str]:
        found = objects.condition(self.deployment, "Progressing") or {}
        return found.get("status", ""), found.get("reason", "")


def test_first_rollout_completes() -> None:
    """A new deployment gets one set of the full size, revision 1 and the conditions of success."""
    world = World().sync()

    status = world.deployment["status"]
    assert world.sizes() == {"i:1": 4}
    assert [status[field] for field in ("replicas", "updatedReplicas", "availableReplicas")] == [
        4,
        4,
        4,
    ]
    assert world.progressing() == ("True", "NewReplicaSetAvailable")
    assert objects.is_condition_true(world.deployment, "Available")
    assert objects.annotations(world.deployment)[deployment.REVISION] == "1"
    assert objects.annotations(next(iter(world.sets.values())))[deployment.REVISION] == "1"


def test_set_and_pods_share_the_template_hash() -> None:
    """Name, selector and template of the set carry the same hash."""
    world = World().sync()

    (found,) = world.sets.values()
    hashed = objects.labels(found)["pod-template-hash"]
    assert objects.name(found) == f"d-{hashed}"
    assert found["spec"]["selector"]["matchLabels"] == {"app": "a", "pod-template-hash": hashed}
    assert found["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] == hashed


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        pytest.param({"maxSurge": "25%", "maxUnavailable": "25%"}, (3, 5), id="quarter"),
        pytest.param({"maxSurge": 0, "maxUnavailable": 1}, (3, 4), id="no-surge"),
        pytest.param({"maxSurge": 2, "maxUnavailable": 0}, (4, 6), id="always-available"),
        pytest.param({"maxSurge": 0, "maxUnavailable": 0}, (3, 4), id="both-zero-still-moves"),
        pytest.param({"maxSurge": "100%", "maxUnavailable": "100%"}, (4, 8), id="all-at-once"),
    ],
)
def test_rolling_update_stays_within_its_bounds(
    strategy: Object, expected: tuple[int, int]
) -> None:
    """Never fewer pods are available, and never more exist, than the strategy allows."""
    rolling = {"type": "RollingUpdate", "rollingUpdate": strategy}
    world = World(strategy=rolling).sync()
    world.set_image("i:2").sync()

    assert world.sizes() == {"i:1": 0, "i:2": 4}
    assert world.lowest_available >= expected[0]
    assert world.highest_total <= expected[1]


def test_recreate_removes_old_pods_first() -> None:
    """With Recreate, the new set grows only when no old pod is left."""
    world = World(strategy={"type": "Recreate"}).sync()
    world.set_image("i:2").sync()

    assert world.sizes() == {"i:1": 0, "i:2": 4}
    assert world.highest_total == 4


def test_broken_rollout_keeps_old_pods_and_times_out() -> None:
    """New pods that never get ready leave enough old ones, and the deadline tells."""
    world = World(progressDeadlineSeconds=60).sync()
    world.set_image("i:2").sync(with_ready=False)
    sizes = world.sizes()
    wait_s = world.requeue_after_s
    world.now += dt.timedelta(seconds=61)
    world.sync(with_ready=False)

    assert (sizes, wait_s) == ({"i:1": 3, "i:2": 2}, 60.0)
    assert world.progressing() == ("False", "ProgressDeadlineExceeded")


def test_rollback_uses_the_old_set_under_a_new_revision() -> None:
    """Going back to an earlier template grows its set again and numbers it anew."""
    world = World().sync()
    world.set_image("i:2").sync()
    world.set_image("i:1").sync()

    assert world.sizes() == {"i:1": 4, "i:2": 0}
    assert objects.annotations(world.deployment)[deployment.REVISION] == "3"


def test_history_is_limited() -> None:
    """Sets beyond the revision history are deleted, the oldest first."""
    world = World(revisionHistoryLimit=1).sync()
    for number in (2, 3, 4):
        world.set_image(f"i:{number}").sync()

    assert world.sizes() == {"i:3": 0, "i:4": 4}


def test_scaling_follows_replicas() -> None:
    """A changed number of replicas changes the newest set, also while paused."""
    world = World().sync()
    world.deployment["spec"].update(replicas=6)
    up = world.sync().sizes()
    world.deployment["spec"].update(replicas=2, paused=True)
    down = world.sync().sizes()

    assert (up, down) == ({"i:1": 6}, {"i:1": 2})


def test_paused_deployment_starts_no_rollout() -> None:
    """A template that changes while paused is rolled out on resumption."""
    world = World().sync()
    world.deployment["spec"]["paused"] = True
    paused = world.set_image("i:2").sync().sizes()
    world.deployment["spec"]["paused"] = False
    resumed = world.sync().sizes()

    assert (paused, resumed) == ({"i:1": 4}, {"i:1": 0, "i:2": 4})


def test_settled_deployment_asks_for_nothing() -> None:
    """A plan for a finished rollout changes nothing, so that the loop comes to rest."""
    world = World().sync()

    plan = deployment.plan(world.deployment, list(world.sets.values()), world.now)
    assert (plan.create, plan.replace, plan.delete, plan.status) == ((), (), (), None)
