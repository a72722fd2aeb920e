"""Whatever the world does, a FineTuneJob is run once, ends once and stays ended."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from loraland_core.resources import FineTuneJob
from loraland_operator.plan.finetunejob import Observed, ResultState, has_ended, plan
from operator_objects import (
    ENTRY,
    NOW,
    SETTINGS,
    UID,
    build_child,
    build_ended_pod,
    build_job,
    build_pod,
    build_published,
    build_result,
    expected_uri,
)

MOVES = (
    "look",
    "run",
    "fail-attempt",
    "upload",
    "complete",
    "fail",
    "delete-job",
    "store-away",
    "store-back",
    "operator-dies",
)


@dataclass
class Sandbox:
    """A world that follows plans as the API server would, and random moves besides."""

    job: FineTuneJob = field(default_factory=build_job)
    child: dict[str, Any] | None = None
    pods: tuple[dict[str, Any], ...] = ()
    has_result: bool = False
    is_store_away: bool = False
    is_published: bool = False
    operator_dies: bool = False
    num_jobs_made: int = 0
    num_ends: int = 0
    seconds: int = 0

    def move(self, name: str) -> None:
        child_runs = self.child is not None and not self.child["status"]["conditions"]
        if name == "run" and child_runs:
            self.child, self.pods = build_child(active=1), (build_pod(),)
        elif name == "fail-attempt" and child_runs:
            self.child, self.pods = build_child(active=1, failed=1), (build_ended_pod(1),)
        elif name == "upload" and child_runs:
            self.has_result = True
        elif name == "complete" and child_runs:
            self.child = build_child(UID, "Complete", succeeded=1)
        elif name == "fail" and child_runs:
            self.child = build_child(UID, "Failed/BackoffLimitExceeded", failed=4)
        elif name == "delete-job":
            self.child, self.pods = None, ()
        elif name in ("store-away", "store-back"):
            self.is_store_away = name == "store-away"
        elif name == "operator-dies":
            self.operator_dies = True

    def observe(self) -> Observed:
        state = ResultState.FOUND if self.has_result else ResultState.MISSING
        runs = self.child is not None and not self.child["status"]["conditions"]
        is_asked = not runs and (self.child is not None or self.job.status.job_ref is not None)
        if not is_asked:
            state = ResultState.NOT_ASKED
        elif self.is_store_away:
            state = ResultState.UNKNOWN
        return Observed(
            settings=SETTINGS,
            entry=ENTRY,
            job=self.child,
            pods=self.pods,
            result_state=state,
            result=build_result() if state is ResultState.FOUND else None,
            expected_uri=expected_uri(),
            store_problem="away" if state is ResultState.UNKNOWN else "",
            adapter=build_published(job="tickets", uid=UID) if self.is_published else None,
        )

    def reconcile(self) -> None:
        """Follow the plan until it changes nothing; a dying operator stops after one change."""
        for _ in range(4):
            self.seconds += 1
            planned = plan(self.job, self.observe(), NOW + timedelta(seconds=self.seconds))
            if has_ended(self.job.status):
                assert planned.apply == ()
                assert planned.status is None
                return
            for apply in planned.apply:
                if apply.manifest["kind"] == "Job":
                    assert self.child is None
                    assert self.job.status.job_ref is None
                    self.child, self.num_jobs_made = build_child(), self.num_jobs_made + 1
                self.is_published |= apply.manifest["kind"] == "Adapter"
            if self.operator_dies:
                self.operator_dies = False
                return
            if not planned.apply:
                self.write(planned.status)
                return
        raise AssertionError("the plan does not settle")

    def write(self, status: dict[str, Any] | None) -> None:
        document = self.job.model_dump(by_alias=True) | {"status": status}
        self.job = FineTuneJob.model_validate(document)
        self.num_ends += has_ended(self.job.status)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(MOVES), max_size=25))
def test_job_ends_once_whatever_happens(moves: list[str]) -> None:
    """Random histories: never a second Job while the first is remembered, never a second end."""
    world = Sandbox()
    for name in moves:
        world.move(name)
        world.reconcile()
    for name in ("store-back", "run", "upload", "complete", "look", "look", "look"):
        world.move(name)
        world.reconcile()

    assert has_ended(world.job.status)
    assert world.num_ends == 1
    assert world.is_published == (world.job.status.adapter_ref is not None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([m for m in MOVES if m != "delete-job"]), max_size=25))
def test_job_is_made_once_unless_somebody_deletes_it(moves: list[str]) -> None:
    """An operator that dies between its steps makes nothing twice."""
    world = Sandbox()
    for name in moves:
        world.move(name)
        world.reconcile()

    assert world.num_jobs_made <= 1
    assert replace(world).num_ends <= 1
