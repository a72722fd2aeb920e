"""The versions of an Adapter: rolled out, rolled back, remembered so long."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from loraland_core import artifacts, conditions, names
from loraland_core.resources import Adapter
from loraland_operator import housekeeping
from loraland_operator.plan import deletion, history
from loraland_operator.plan.adapter import Observed, Verification, plan
from loraland_operator.plan.fleet import Fleet
from loraland_operator.plan.steps import AdapterPlan
from operator_objects import (
    BASE,
    CREATED,
    DIGEST,
    ENTRY,
    NOW,
    build_adapter_object,
    build_beat,
    build_manifest,
    build_record,
)

EARLIER = build_manifest(resolvedRevision="rev-0").digest
OLDEST = build_manifest(resolvedRevision="rev-00").digest
REVISIONS = {DIGEST: "rev-1", EARLIER: "rev-0", OLDEST: "rev-00"}


def adapter(digest: str = DIGEST, status: Any = None, *, job: str = "", **spec: Any) -> Adapter:
    """Return the Adapter with a digest that somebody, or a job, has set."""
    obj = build_adapter_object(source={"artifact": {"digest": digest}}, **spec)
    if job:
        obj["metadata"]["labels"] = {names.LABEL_JOB: job}
        obj["metadata"]["annotations"] = {
            names.ANNOTATION_DIGEST: digest,
            names.ANNOTATION_JOB_CREATED: CREATED,
        }
    return Adapter.model_validate(obj | {"status": status or {}})


def roll_out(found: Adapter, *, is_served: bool = True, minutes: int = 0) -> AdapterPlan:
    """Plan in a world where the digest of the spec is verified and registered."""
    artifact = found.spec.source.artifact
    assert artifact is not None
    manifest = build_manifest(resolvedRevision=REVISIONS[artifact.digest])
    beats = (build_beat(),) if is_served else ()
    uri = f"s3://loraland/{artifact.digest}"
    observed = Observed(
        entry=ENTRY,
        known_base_models=(BASE,),
        verification=Verification(manifest=manifest),
        uri=uri,
        record=build_record(digest=artifact.digest, uri=uri),
        fleet=Fleet(beats=beats),
    )
    return plan(found, replace(observed), NOW + timedelta(minutes=minutes))


def versions(planned: AdapterPlan) -> list[tuple[str, str]]:
    assert planned.status is not None
    return [(r["digest"], r["cause"]) for r in planned.status["history"]]


def test_first_version_is_the_first_of_its_history() -> None:
    """With the job that published it; no roll-out is told of where nothing was before."""
    planned = roll_out(adapter(job="first"))

    assert versions(planned) == [(DIGEST, "FineTuneJob/first")]
    assert "RolledOut" not in [note.reason for note in planned.notes]


def test_later_version_goes_in_front() -> None:
    """What was served before stays known, with its times."""
    first = roll_out(adapter(EARLIER, job="first"))
    second = roll_out(adapter(DIGEST, first.status, job="second"), minutes=5)

    assert versions(second) == [(DIGEST, "FineTuneJob/second"), (EARLIER, "FineTuneJob/first")]
    assert second.status is not None
    assert [r["readyAt"] for r in second.status["history"]] == [
        "2026-01-01T12:05:00Z",
        "2026-01-01T12:00:00Z",
    ]
    assert [n.message for n in second.notes if n.reason == "RolledOut"] == [
        f"version {DIGEST[:12]} (of FineTuneJob/second) takes the place of"
        f" version {EARLIER[:12]} (of FineTuneJob/first)"
    ]


def test_going_back_is_told_as_such() -> None:
    """An earlier digest set by hand is a roll-back to what it was, and stands once."""
    first = roll_out(adapter(EARLIER, job="first"))
    second = roll_out(adapter(DIGEST, first.status, job="second"))
    back = roll_out(adapter(EARLIER, second.status))
    forth = roll_out(adapter(DIGEST, back.status))

    assert versions(back) == [
        (EARLIER, "Rollback to FineTuneJob/first"),
        (DIGEST, "FineTuneJob/second"),
    ]
    assert versions(forth)[0] == (DIGEST, "Rollback to FineTuneJob/second")
    assert [n.reason for n in back.notes] == ["RolledBack"]


def test_going_forth_again_is_no_publication() -> None:
    """The job's annotations stay when somebody goes back by hand; its wait was over long ago."""
    first = roll_out(adapter(EARLIER, job="first"))
    second = roll_out(adapter(DIGEST, first.status, job="second"))
    there = adapter(DIGEST, second.status, job="second").metadata
    back = adapter(EARLIER, second.status).model_copy(update={"metadata": there})
    again = adapter(DIGEST, roll_out(back).status).model_copy(update={"metadata": there})
    obj = again.model_dump(by_alias=True, exclude_none=True)
    forth = roll_out(again)

    assert versions(forth)[0] == (DIGEST, "Rollback to FineTuneJob/second")
    assert history.waited_s(obj, forth.status or {}, NOW) is None


def test_history_is_as_long_as_the_spec_says() -> None:
    """The limit counts earlier versions; the current one is always there."""
    status = None
    for digest in (OLDEST, EARLIER, DIGEST):
        status = roll_out(adapter(digest, status, revisionHistoryLimit=1)).status
    none = roll_out(adapter(DIGEST, status, revisionHistoryLimit=0))

    assert status is not None
    assert [r["digest"] for r in status["history"]] == [DIGEST, EARLIER]
    assert versions(none) == [(DIGEST, "Spec")]


def test_second_look_changes_no_history() -> None:
    """A restart, or a heartbeat, is no roll-out."""
    first = roll_out(adapter(job="first"))
    again = roll_out(adapter(DIGEST, first.status, job="first"), minutes=60)

    assert (again.status, again.notes) == (first.status, ())


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(adapter(job="first"), ("FineTuneJob", 3600.0), id="from-the-job"),
        pytest.param(adapter(), ("Adapter", 3600.0), id="from-the-adapter"),
        pytest.param(
            adapter(DIGEST, roll_out(adapter(EARLIER)).status), None, id="a-later-change-by-hand"
        ),
        pytest.param(
            adapter(DIGEST, roll_out(adapter(EARLIER)).status, revisionHistoryLimit=0),
            None,
            id="a-later-change-where-none-is-remembered",
        ),
    ],
)
def test_wait_is_measured_once(found: Adapter, expected: tuple[str, float] | None) -> None:
    """From what somebody applied to the first replica that serves it, and not again."""
    obj = found.model_dump(by_alias=True, exclude_none=True)
    assert conditions.timestamp(NOW) == "2026-01-01T12:00:00Z"
    served = roll_out(found).status or {}

    assert history.waited_s(obj, served, NOW) == expected
    assert history.waited_s({**obj, "status": served}, served, NOW) is None


def test_wait_is_not_over_before_a_replica_serves() -> None:
    """A record that nobody has read yet is not ready."""
    found = adapter(job="first")
    obj = found.model_dump(by_alias=True, exclude_none=True)

    assert history.waited_s(obj, roll_out(found, is_served=False).status or {}, NOW) is None


def test_deletion_takes_earlier_versions_along() -> None:
    """Under the policy Delete nothing of what was served is left behind."""
    first = roll_out(adapter(EARLIER)).status
    found = adapter(DIGEST, roll_out(adapter(DIGEST, first)).status, deletionPolicy="Delete")

    expected = {artifacts.adapter_prefix("default", "tickets", d) for d in (DIGEST, EARLIER)}
    assert set(deletion.prefixes_of(found)) == expected


def test_sweep_leaves_what_one_may_go_back_to() -> None:
    """Digests of the history are named ones; others are kept as far as the limit has room."""
    first = roll_out(adapter(EARLIER)).status
    found = adapter(DIGEST, roll_out(adapter(DIGEST, first)).status, revisionHistoryLimit=3)

    (named,) = housekeeping.read_adapter(found)
    assert (named.name, named.digests, named.history_limit) == (
        "tickets",
        frozenset({DIGEST, EARLIER}),
        2,
    )
