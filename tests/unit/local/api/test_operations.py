"""Create, update, patch and apply against a store."""

from pathlib import Path
from typing import Any

import api_world
import pytest
from api_world import World
from loraland_local.api import kinds
from loraland_local.api.errors import ApiError
from loraland_local.api.intake import Options

Json = dict[str, Any]
JOBS = kinds.builtin("jobs", "batch")
DEPLOYMENTS = kinds.builtin("deployments", "apps")
LEASES = kinds.builtin("leases", "coordination.k8s.io")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_new_object_gets_what_the_server_sets(world: World) -> None:
    """A uid, a version, a generation, defaults and an owner for its fields."""
    made = world.create(world.widgets, api_world.widget(size="s"))

    assert made["metadata"]["generation"] == 1
    assert made["spec"] == {"size": "s", "replicas": 1}
    assert made["metadata"]["managedFields"][0]["manager"] == "test"


def test_namespace_must_exist_and_live(world: World) -> None:
    """Nothing is created in a namespace that is not there or going."""
    with pytest.raises(ApiError) as missing:
        world.create(kinds.CONFIG_MAPS, {"metadata": {"name": "c"}}, "nowhere")
    world.cluster.deletions.delete(kinds.NAMESPACES, "", "default", {}, dry_run=False)
    with pytest.raises(ApiError) as going:
        world.create(kinds.CONFIG_MAPS, {"metadata": {"name": "c"}})

    assert (missing.value.code, going.value.code) == (404, 403)


def test_generation_counts_changes_of_the_spec_only(world: World) -> None:
    """Labels and status leave it alone."""
    world.create(world.widgets, api_world.widget(size="s"))
    labelled = world.patch(world.widgets, "w", {"metadata": {"labels": {"a": "b"}}})
    phased = world.patch(
        world.widgets, "w", {"status": {"phase": "x"}, "spec": {"size": "no"}}, subresource="status"
    )
    changed = world.patch(world.widgets, "w", {"spec": {"size": "m"}})

    found = [obj["metadata"]["generation"] for obj in (labelled, phased, changed)]
    assert found == [1, 1, 2]
    assert (phased["spec"]["size"], phased["status"]) == ("s", {"phase": "x"})
    assert changed["status"] == {"phase": "x"}


def test_update_without_a_change_keeps_the_version(world: World) -> None:
    """Controllers that write what is there already disturb nobody."""
    made = world.create(world.widgets, api_world.widget(size="s"))

    again = world.patch(world.widgets, "w", {"spec": {"size": "s"}})

    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_stale_version_is_a_conflict(world: World) -> None:
    """Whoever read an older version has to read again."""
    made = world.create(LEASES, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}})
    world.patch(LEASES, "l", {"spec": {"holderIdentity": "b"}})

    with pytest.raises(ApiError) as caught:
        world.cluster.operations.update(LEASES, "default", "l", made, api_world.options())

    assert (caught.value.code, caught.value.reason) == (409, "Conflict")


def test_dry_run_changes_nothing(world: World) -> None:
    """The answer is as if, the store is as before."""
    made = world.cluster.operations.create(
        world.widgets, "default", api_world.widget(size="s"), api_world.options(dry_run=True)
    )

    assert made["spec"]["replicas"] == 1
    assert world.get(world.widgets, "w") is None


def test_apply_creates_then_updates(world: World) -> None:
    """The second part of the answer tells which."""
    operations = world.cluster.operations

    _, created = operations.apply(
        world.widgets, "default", "w", api_world.widget(size="s"), api_world.options()
    )
    stored, again = operations.apply(
        world.widgets, "default", "w", api_world.widget(size="m"), api_world.options()
    )

    assert (created, again) == (True, False)
    assert stored["spec"] == {"size": "m", "replicas": 1}


def test_pod_needs_its_service_account(world: World) -> None:
    """The message is the one people look up."""
    with pytest.raises(ApiError, match='serviceaccount "nobody" not found'):
        world.create(kinds.PODS, api_world.pod(serviceAccountName="nobody"))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(
            {"conditions": [{"type": "Complete", "status": "True"}]},
            "completionTime is required",
            id="complete without a time",
        ),
        pytest.param(
            {"completionTime": "2026-01-01T00:00:00Z"},
            "cannot be set for non-complete jobs",
            id="a time without being complete",
        ),
        pytest.param(
            {"conditions": [{"type": "Failed", "status": "True"}]},
            "without the FailureTarget=true condition",
            id="failed without its target",
        ),
    ],
)
def test_job_status_is_checked(world: World, status: Json, expected: str) -> None:
    """A controller's mistakes are refused as by a real server."""
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    world.create(JOBS, {"metadata": {"name": "j"}, "spec": {"template": template}})

    with pytest.raises(ApiError, match=expected):
        world.patch(JOBS, "j", {"status": status}, subresource="status")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, "spec.selector: Required value", id="no selector"),
        pytest.param(
            {"selector": {"matchLabels": {"a": "z"}}},
            "`selector` does not match template `labels`",
            id="selector and labels differ",
        ),
        pytest.param({"replicas": -1}, "must be greater than or equal to 0", id="negative"),
        pytest.param(
            {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
            "may not be specified when strategy `type` is 'Recreate'",
            id="strategy",
        ),
    ],
)
def test_deployment_is_checked(world: World, spec: Json, expected: str) -> None:
    """What a schema cannot say is said by the kind's own rules."""
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }

    with pytest.raises(ApiError) as caught:
        world.create(
            DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": {"template": template, **spec}}
        )

    assert caught.value.code == 422
    assert expected in caught.value.message


def test_definition_without_a_type_is_refused(world: World) -> None:
    """Structural schemas name a type everywhere."""
    bad = api_world.definition(
        schema={"openAPIV3Schema": {"type": "object", "properties": {"a": {}}}}
    )
    bad["metadata"]["name"] = "gadgets.x.dev"
    bad["spec"]["names"] = {"plural": "gadgets", "kind": "Gadget"}

    with pytest.raises(ApiError, match="must not be empty for specified object fields"):
        world.create(kinds.DEFINITIONS, bad, "")


def test_applied_status_touches_nothing_else(world: World) -> None:
    """An apply to the status subresource cannot conflict over the spec."""
    operations = world.cluster.operations
    operations.apply(world.widgets, "default", "w", api_world.widget(size="s"), api_world.options())
    config = {**api_world.widget(size="m"), "status": {"phase": "x"}}

    stored, _ = operations.apply(
        world.widgets, "default", "w", config, Options(manager="other", subresource="status")
    )

    assert (stored["spec"]["size"], stored["status"]) == ("s", {"phase": "x"})


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({"metadata": {"name": "c"}, "data": {"a": "x" * (2**20 + 1)}}, "1048576 bytes"),
        (
            {"metadata": {"name": "c", "annotations": {"a": "x" * (2**18 + 1)}}},
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
    ],
    ids=["data", "annotations"],
)
def test_what_a_real_server_finds_too_large_is_refused(
    world: World, obj: Json, expected: str
) -> None:
    """What works here must work on a cluster."""
    with pytest.raises(ApiError, match=expected):
        world.create(kinds.CONFIG_MAPS, obj)
