"""Garbage collection: what follows for one object from its owners and dependents."""

import pytest
from loraland_local.apiclient import resources
from loraland_local.controllers import garbage
from loraland_local.controllers.garbage import (
    Delete,
    DropOwners,
    Node,
    Reference,
    RemoveFinalizer,
)


def reference(uid: str, *, blocks: bool = True) -> Reference:
    return Reference("v1", "ConfigMap", uid, uid, blocks)


def node(
    uid: str, *owners: Reference, finalizers: tuple[str, ...] = (), deleting: bool = False
) -> Node:
    return Node(resources.CONFIG_MAPS, "n", uid, uid, owners, finalizers, deleting)


OWNER = node("owner")
WAITING = node("owner", finalizers=(garbage.FOREGROUND,), deleting=True)
CHILD = node("child", reference("owner"))
CHILD_OF_TWO = node("child", reference("owner"), reference("other"))
ORPHANING = node("owner", finalizers=(garbage.ORPHAN,), deleting=True)
LOOSE = node("child", reference("owner", blocks=False))


@pytest.mark.parametrize(
    ("subject", "owners", "dependents", "expected"),
    [
        pytest.param(CHILD, {"owner": OWNER}, [], [], id="owner-is-there"),
        pytest.param(CHILD, {}, [], [], id="owner-is-not-known"),
        pytest.param(CHILD, {"owner": None}, [], [Delete(CHILD, "Background")], id="owner-is-gone"),
        pytest.param(
            CHILD_OF_TWO,
            {"owner": None, "other": OWNER},
            [],
            [DropOwners(CHILD_OF_TWO, frozenset({"owner"}))],
            id="one-of-two-owners-is-gone",
        ),
        pytest.param(
            CHILD_OF_TWO,
            {"owner": None},
            [],
            [DropOwners(CHILD_OF_TWO, frozenset({"owner"}))],
            id="the-other-owner-is-not-known",
        ),
        pytest.param(
            CHILD, {"owner": WAITING}, [], [Delete(CHILD, "Background")], id="owner-waits"
        ),
        pytest.param(
            CHILD,
            {"owner": WAITING},
            [node("grandchild", reference("child"))],
            [Delete(CHILD, "Foreground")],
            id="owner-waits-for-a-tree",
        ),
        pytest.param(WAITING, {}, [CHILD], [], id="waits-for-its-child"),
        pytest.param(
            WAITING,
            {},
            [LOOSE],
            [RemoveFinalizer(WAITING, garbage.FOREGROUND)],
            id="does-not-wait-for-one-that-does-not-block",
        ),
        pytest.param(
            WAITING, {}, [], [RemoveFinalizer(WAITING, garbage.FOREGROUND)], id="nothing-left"
        ),
        pytest.param(
            ORPHANING,
            {},
            [CHILD],
            [DropOwners(CHILD, frozenset({"owner"}))],
            id="orphans-its-child",
        ),
        pytest.param(
            ORPHANING, {}, [], [RemoveFinalizer(ORPHANING, garbage.ORPHAN)], id="orphaned-all"
        ),
        pytest.param(
            node("child", reference("owner"), deleting=True),
            {"owner": None},
            [],
            [],
            id="is-already-deleted",
        ),
    ],
)
def test_plan_decides_from_owners_and_dependents(
    subject: Node,
    owners: dict[str, Node | None],
    dependents: list[Node],
    expected: list[garbage.Action],
) -> None:
    """Each situation has its one answer."""
    actions = garbage.plan(subject, owners, dependents, has_dependents=bool(dependents))

    assert actions == expected


def test_node_is_built_from_an_object() -> None:
    """Owners, finalizers and the deletion mark are read from the metadata."""
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "o"}
    meta = {"namespace": "n", "name": "x", "uid": "x", "ownerReferences": [owner]}
    meta |= {"finalizers": ["orphan"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    built = garbage.build_node(resources.CONFIG_MAPS, {"metadata": meta})

    expected = node(
        "x",
        Reference("v1", "ConfigMap", "o", "o", blocks_owner=False),
        finalizers=("orphan",),
        deleting=True,
    )
    assert built == expected
