"""The plan of an Adapter for every outcome."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from loraland_core import names
from loraland_core.resources import Adapter
from loraland_operator.plan import adapter as planning
from loraland_operator.plan import deletion
from loraland_operator.plan.adapter import Observed, Verification, plan
from loraland_operator.plan.fleet import Fleet
from loraland_operator.plan.steps import AdapterPlan
from operator_objects import (
    BASE,
    DIGEST,
    ENTRY,
    NOW,
    build_adapter,
    build_adapter_object,
    build_beat,
    build_manifest,
    build_record,
    expected_uri,
)

SOUND = Verification(manifest=build_manifest())
OBSERVED = Observed(entry=ENTRY, known_base_models=(BASE,), verification=SOUND, uri=expected_uri())
REGISTERED = replace(OBSERVED, record=build_record())
SERVED = replace(REGISTERED, fleet=Fleet(beats=(build_beat(),)))


def rejection(digest: str = DIGEST) -> dict[str, Any]:
    return {"default/tickets": {"digest": digest, "reason": "RankOverLimit", "message": "8 > 4"}}


def conditions_of(planned: AdapterPlan) -> dict[str, str]:
    assert planned.status is not None
    return {c["type"]: f"{c['status']}/{c['reason']}" for c in planned.status["conditions"]}


def after(adapter: Adapter, planned: AdapterPlan) -> Adapter:
    return Adapter.model_validate(adapter.model_dump(by_alias=True) | {"status": planned.status})


OUTCOMES = [
    pytest.param(
        replace(OBSERVED, entry=None), "Rejected", "Accepted", "False/UnknownBaseModel", id="base"
    ),
    pytest.param(
        replace(
            OBSERVED, verification=Verification(refusal=("ManifestMissing", "no manifest.json"))
        ),
        "Rejected",
        "ArtifactVerified",
        "False/ManifestMissing",
        id="no-manifest",
    ),
    pytest.param(
        replace(OBSERVED, verification=Verification(problem="S3 is away")),
        "Pending",
        "ArtifactVerified",
        "Unknown/ArtifactStoreUnreachable",
        id="store-away",
    ),
    pytest.param(
        replace(OBSERVED, verification=Verification(manifest=build_manifest(baseModel="llama"))),
        "Rejected",
        "Compatible",
        "False/BaseModelMismatch",
        id="another-base",
    ),
    pytest.param(
        replace(OBSERVED, verification=Verification(manifest=build_manifest(rank=128))),
        "Rejected",
        "Compatible",
        "False/RankOverLimit",
        id="rank",
    ),
    pytest.param(
        replace(OBSERVED, registry_problem="Redis is away"),
        "Pending",
        "Registered",
        "Unknown/RegistryUnreachable",
        id="registry-away",
    ),
    pytest.param(REGISTERED, "Pending", "Ready", "False/NoLiveReplica", id="no-replica"),
    pytest.param(
        replace(REGISTERED, fleet=Fleet(beats=(build_beat(applied=99),))),
        "Pending",
        "Ready",
        "False/WaitingForReplicas",
        id="not-applied-yet",
    ),
    pytest.param(
        replace(REGISTERED, fleet=Fleet(beats=(build_beat(rejected=rejection()),))),
        "Rejected",
        "Ready",
        "False/RejectedByReplica",
        id="rejected-by-replica",
    ),
    pytest.param(
        replace(REGISTERED, fleet=Fleet(beats=(build_beat(rejected=rejection("f" * 64)),))),
        "Ready",
        "Ready",
        "True/Serving",
        id="rejection-of-an-earlier-digest",
    ),
    pytest.param(
        replace(
            REGISTERED,
            fleet=Fleet(beats=(build_beat(rejected=rejection()), build_beat("r2"))),
        ),
        "Ready",
        "Ready",
        "True/Serving",
        id="one-of-two",
    ),
    pytest.param(SERVED, "Ready", "Ready", "True/Serving", id="ready"),
]


@pytest.mark.parametrize(("observed", "phase", "type_", "wanted"), OUTCOMES)
def test_adapter_stands_where(observed: Observed, phase: str, type_: str, wanted: str) -> None:
    """Each station on the way to Ready says why it holds."""
    planned = plan(build_adapter(), observed, NOW)

    assert not planned.changes_the_world
    assert planned.status is not None
    assert (phase, wanted) == (planned.status["phase"], conditions_of(planned)[type_])


@pytest.mark.parametrize(("observed", "phase", "type_", "wanted"), OUTCOMES)
def test_second_look_changes_nothing(
    observed: Observed, phase: str, type_: str, wanted: str
) -> None:
    """The same world gives the same status and no event, so nothing is written."""
    adapter = build_adapter()
    first = plan(adapter, observed, NOW)
    second = plan(after(adapter, first), observed, NOW + timedelta(hours=1))

    assert first.status == second.status
    assert second.notes == ()


def test_finalizer_comes_before_the_record() -> None:
    """Whatever stands in the registry can be taken out again."""
    obj = build_adapter_object()
    obj["metadata"]["finalizers"] = []

    bare = plan(Adapter.model_validate(obj), OBSERVED, NOW)
    held = plan(build_adapter(), OBSERVED, NOW)

    assert (bare.add_finalizer, bare.publish) == (True, None)
    assert held.publish == build_record(revision=0)


@pytest.mark.parametrize(
    ("spec", "changed"),
    [
        pytest.param({"pinned": True}, {"pinned": True}, id="pin"),
        pytest.param({"priority": 7}, {"priority": 7}, id="priority"),
        pytest.param({"allowedTenants": ["*"]}, {"tenants": ["*"]}, id="tenants"),
        pytest.param({"prefetch": True}, {"prefetch": True}, id="prefetch"),
    ],
)
def test_changed_spec_writes_the_record_anew(spec: dict[str, Any], changed: dict[str, Any]) -> None:
    """What replicas need to know is in the record."""
    planned = plan(build_adapter(**spec), SERVED, NOW)

    assert planned.publish == build_record(revision=0, **changed)


def test_unverified_new_digest_leaves_the_earlier_one_served() -> None:
    """A bad roll-out does not take down what works, and says what is still served."""
    adapter = build_adapter()
    served = after(adapter, plan(adapter, SERVED, NOW))
    bad = served.model_copy(deep=True)
    assert bad.spec.source.artifact is not None
    bad.spec.source.artifact.digest = "e" * 64
    refused = Verification(refusal=("ManifestMissing", "no manifest.json"))

    planned = plan(bad, replace(SERVED, verification=refused), NOW)

    assert planning.needs_verification(bad)
    assert not planned.changes_the_world
    assert conditions_of(planned)["Ready"] == "False/ManifestMissing"
    assert planned.status is not None
    assert DIGEST[:12] in planned.status["conditions"][-1]["message"]


def test_disabled_adapter_is_withdrawn_and_says_so() -> None:
    """The record goes first; then the status tells."""
    adapter = build_adapter(enabled=False)

    withdrawn = plan(adapter, SERVED, NOW)
    told = plan(adapter, replace(SERVED, record=None), NOW)

    assert withdrawn.withdraw
    assert conditions_of(told)["Ready"] == "False/Disabled"


DELETIONS = [
    pytest.param(SERVED, AdapterPlan(withdraw=True, remove_finalizer=True), id="retain"),
    pytest.param(
        replace(SERVED, unshared_prefixes=("adapters/default/tickets/d/",)),
        AdapterPlan(
            withdraw=True,
            delete_prefixes=("adapters/default/tickets/d/",),
            remove_finalizer=True,
        ),
        id="delete-files",
    ),
    pytest.param(
        replace(OBSERVED, record=None), AdapterPlan(remove_finalizer=True), id="never-registered"
    ),
]


@pytest.mark.parametrize(("observed", "wanted"), DELETIONS)
def test_deletion(observed: Observed, wanted: AdapterPlan) -> None:
    """Registry, files, finalizer, in this order."""
    obj = build_adapter_object()
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T11:59:00Z"

    planned = plan(Adapter.model_validate(obj), observed, NOW)

    assert wanted == planned


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"registry_problem": "Redis is away"}, "RegistryUnreachable", id="redis"),
        pytest.param({"store_problem": "S3 is away"}, "ArtifactStoreUnreachable", id="store"),
    ],
)
def test_held_up_deletion_says_so_and_goes_on(changes: dict[str, Any], reason: str) -> None:
    """A finalizer that waits tells for what, and how to give up."""
    obj = build_adapter_object()
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T11:59:00Z"

    planned = plan(Adapter.model_validate(obj), replace(SERVED, **changes), NOW)

    assert not planned.changes_the_world
    assert planned.requeue_after_s
    assert conditions_of(planned)["Registered"] == f"Unknown/{reason}"
    assert names.FINALIZER in str(planned.status)


def test_foreign_finalizers_are_none_of_ours() -> None:
    """Once ours is gone the Adapter waits for others without us."""
    obj = build_adapter_object()
    obj["metadata"] |= {"deletionTimestamp": "2026-01-01T11:59:00Z", "finalizers": ["x.y/z"]}

    assert AdapterPlan() == plan(Adapter.model_validate(obj), SERVED, NOW)


@pytest.mark.parametrize(
    ("written_s_ago", "is_written"),
    [
        pytest.param(None, True, id="never-written"),
        pytest.param(10, False, id="written-just-now"),
        pytest.param(31, True, id="written-a-while-ago"),
    ],
)
def test_instances_are_written_sparingly(written_s_ago: float | None, is_written: bool) -> None:
    """The list of instances changes often; at most every half minute is it written."""
    written_at = None if written_s_ago is None else NOW - timedelta(seconds=written_s_ago)
    fleet = Fleet(beats=(build_beat(rejected=rejection()), build_beat("r2")))
    observed = replace(SERVED, fleet=fleet, instances_written_at=written_at)

    planned = plan(build_adapter(), observed, NOW)

    assert planned.status is not None
    assert ("instances" in planned.status) == is_written
    assert (planned.requeue_after_s is None) == is_written


def test_registry_written_again_keeps_revisions() -> None:
    """An unchanged Adapter stays Ready when Redis lost everything; a changed one gets a new one."""
    adapter = build_adapter()
    registered = after(adapter, plan(adapter, SERVED, NOW))
    record = planning.build_record(registered)
    assert record is not None
    changed = registered.model_copy(deep=True)
    changed.metadata.generation = 2

    assert planning.keep_revision(registered, record).revision == 100
    assert planning.keep_revision(changed, record).revision == 0


def test_unreadable_adapter_keeps_what_it_may_name() -> None:
    """One that another release wrote holds the files of its digest, and nobody else's."""
    strange = {"spec": {"source": {"somethingNew": {"digest": DIGEST}}}}

    assert deletion.mentions(strange, f"adapters/default/tickets/{DIGEST}/")
    assert not deletion.mentions(strange, f"adapters/default/tickets/{'e' * 64}/")
