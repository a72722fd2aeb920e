"""What follows from owner references and deletion finalizers. Pure, no I/O.

One object is looked at together with its owners and its dependents; deletions it causes make
other objects worth looking at, so that a whole tree is taken apart step by step.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object
from loraland_local.apiclient.resources import Resource

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclasses.dataclass(frozen=True)
class Reference:
    """One owner reference."""

    api_version: str
    kind: str
    name: str
    uid: str
    blocks_owner: bool


@dataclasses.dataclass(frozen=True)
class Node:
    """What garbage collection knows of one object."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    owners: tuple[Reference, ...] = ()
    finalizers: tuple[str, ...] = ()
    is_deleting: bool = False

    @property
    def waits_for_dependents(self) -> bool:
        return self.is_deleting and FOREGROUND in self.finalizers


@dataclasses.dataclass(frozen=True)
class Delete:
    node: Node
    propagation: str


@dataclasses.dataclass(frozen=True)
class RemoveFinalizer:
    node: Node
    finalizer: str


@dataclasses.dataclass(frozen=True)
class DropOwners:
    node: Node
    uids: frozenset[str]


Action = Delete | RemoveFinalizer | DropOwners


def build_node(resource: Resource, obj: Object) -> Node:
    references = tuple(
        Reference(
            api_version=reference["apiVersion"],
            kind=reference["kind"],
            name=reference["name"],
            uid=reference["uid"],
            blocks_owner=bool(reference.get("blockOwnerDeletion")),
        )
        for reference in objects.metadata(obj).get("ownerReferences") or []
    )
    return Node(
        resource=resource,
        namespace=objects.namespace(obj),
        name=objects.name(obj),
        uid=objects.uid(obj),
        owners=references,
        finalizers=tuple(objects.finalizers(obj)),
        is_deleting=objects.is_deleting(obj),
    )


def plan(
    node: Node,
    owners: Mapping[str, Node | None],
    dependents: Sequence[Node],
    *,
    has_dependents: bool,
) -> list[Action]:
    """Decide about one object.

    ``owners`` maps the uid of each owner to its node, or to None where it is certain that the
    owner is gone; an owner that is not in the map is not known, and counts as alive.
    """
    if node.waits_for_dependents:
        return _delete_dependents(node, dependents)
    if node.is_deleting and ORPHAN in node.finalizers:
        drops: list[Action] = [DropOwners(found, frozenset({node.uid})) for found in dependents]
        return drops or [RemoveFinalizer(node, ORPHAN)]
    if node.is_deleting or not node.owners:
        return []
    gone = {ref.uid for ref in node.owners if ref.uid in owners and owners[ref.uid] is None}
    waiting = {
        ref.uid
        for ref in node.owners
        if (owner := owners.get(ref.uid)) is not None and owner.waits_for_dependents
    }
    if not gone | waiting:
        return []
    if len(gone | waiting) < len({ref.uid for ref in node.owners}):
        return [DropOwners(node, frozenset(gone | waiting))]
    propagation = "Foreground" if waiting and has_dependents else "Background"
    return [Delete(node, propagation)]


def _delete_dependents(node: Node, dependents: Sequence[Node]) -> list[Action]:
    """Let the owner go once nothing that blocks it is left; dependents decide for themselves."""
    is_blocked = any(
        reference.uid == node.uid and reference.blocks_owner
        for found in dependents
        for reference in found.owners
    )
    return [] if is_blocked else [RemoveFinalizer(node, FOREGROUND)]
