"""Deleting: finalizers, grace periods, propagation, definitions."""

from pathlib import Path

import api_world
import pytest
from api_world import World
from loraland_local.api import kinds
from loraland_local.api.errors import ApiError


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_object_waits_for_its_finalizers(world: World) -> None:
    """It is marked first, and goes with its last finalizer."""
    world.create(world.widgets, {"metadata": {"name": "w", "finalizers": ["a/x"]}})

    marked = world.delete(world.widgets, "w")
    world.patch(world.widgets, "w", {"metadata": {"finalizers": None}})

    assert marked["metadata"]["deletionTimestamp"]
    assert world.get(world.widgets, "w") is None


def test_no_finalizer_is_added_to_what_is_being_deleted(world: World) -> None:
    """Otherwise it might never go."""
    world.create(world.widgets, {"metadata": {"name": "w", "finalizers": ["a/x"]}})
    world.delete(world.widgets, "w")

    with pytest.raises(ApiError, match="no new finalizers can be added"):
        world.patch(world.widgets, "w", {"metadata": {"finalizers": ["a/x", "a/y"]}})


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")],
)
def test_propagation_leaves_its_finalizer_to_the_collector(
    world: World, policy: str, expected: str
) -> None:
    """Dependents are somebody else's business; the finalizer tells whose."""
    world.create(world.widgets, api_world.widget(size="s"))

    marked = world.delete(world.widgets, "w", propagationPolicy=policy)

    assert marked["metadata"]["finalizers"] == [expected]


def test_bound_pod_gets_its_grace_period(world: World) -> None:
    """A running pod is marked; the kubelet deletes it with a period of zero."""
    world.create(kinds.PODS, api_world.pod(nodeName="n", terminationGracePeriodSeconds=7))

    marked = world.delete(kinds.PODS, "p")
    world.delete(kinds.PODS, "p", gracePeriodSeconds=0)

    assert marked["metadata"]["deletionGracePeriodSeconds"] == 7
    assert world.get(kinds.PODS, "p") is None


def test_pod_on_no_node_goes_at_once(world: World) -> None:
    """There is nobody to wait for."""
    world.create(kinds.PODS, api_world.pod())

    world.delete(kinds.PODS, "p")

    assert world.get(kinds.PODS, "p") is None


def test_deletion_may_insist_on_a_uid(world: World) -> None:
    """A collector never deletes a namesake."""
    world.create(world.widgets, api_world.widget(size="s"))

    with pytest.raises(ApiError, match="Precondition failed: UID in precondition: other"):
        world.delete(world.widgets, "w", preconditions={"uid": "other"})


def test_definition_goes_after_its_objects(world: World) -> None:
    """An object with a finalizer keeps the definition, and is served, until it goes."""
    world.create(world.widgets, {"metadata": {"name": "w", "finalizers": ["a/x"]}})
    definition = world.cluster.deletions.delete(
        kinds.DEFINITIONS, "", "widgets.x.dev", {}, dry_run=False
    )
    served = world.cluster.catalog.find("x.dev", "v1", "widgets")
    world.patch(world.widgets, "w", {"metadata": {"finalizers": None}})

    assert definition["metadata"]["deletionTimestamp"]
    assert served is not None
    assert world.cluster.catalog.find("x.dev", "v1", "widgets") is None
    assert world.cluster.store.get(kinds.DEFINITIONS.storage_key, ("", "widgets.x.dev")) is None
