"""May a user do this? Roles and bindings, as RBAC evaluates them: rights only ever add up.

No I/O of its own; it reads the store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from . import kinds
from .identity import AUTHENTICATED, User
from .storage import Store

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Attributes:
    """What is asked for: a verb on a resource, or on a path that is none."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


@dataclasses.dataclass(frozen=True)
class Decision:
    """An answer and, where it is yes, the binding that gave it."""

    allowed: bool
    reason: str = ""


_OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version", "/api", "/apis", "/openapi")
_REVIEWS = {"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"}


def decide(store: Store, user: User, asked: Attributes) -> Decision:
    if user.is_admin:
        return Decision(True)
    if asked.path and AUTHENTICATED in user.groups and asked.path.startswith(_OPEN_PATHS):
        return Decision(True, "discovery is open to everybody who is authenticated")
    if asked.resource in _REVIEWS:
        return Decision(True, "everybody may ask about themselves")
    for rule, reason in _rules(store, user, asked.namespace):
        if _allows(rule, asked):
            return Decision(True, reason)
    return Decision(False)


def rules_of(store: Store, user: User, namespace: str) -> list[Json]:
    if user.is_admin:
        return [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    return [rule for rule, _ in _rules(store, user, namespace)]


def _rules(store: Store, user: User, namespace: str) -> Iterator[tuple[Json, str]]:
    """Yield every rule that bindings give to the user, with the words of the reason."""
    for binding in store.objects(kinds.CLUSTER_ROLE_BINDINGS.storage_key):
        yield from _bound(store, binding, "ClusterRoleBinding", user, "")
    if namespace:
        for binding in store.objects(kinds.ROLE_BINDINGS.storage_key, namespace):
            yield from _bound(store, binding, "RoleBinding", user, namespace)


def _bound(
    store: Store, binding: Json, kind: str, user: User, namespace: str
) -> Iterator[tuple[Json, str]]:
    subject = next(
        (one for one in binding.get("subjects") or [] if _is(one, user, namespace)), None
    )
    if subject is None:
        return
    reference = binding["roleRef"]
    if reference["kind"] == "ClusterRole":
        role = store.get(kinds.CLUSTER_ROLES.storage_key, ("", reference["name"]))
    else:
        role = store.get(kinds.ROLES.storage_key, (namespace, reference["name"]))
    name = binding["metadata"]["name"]
    shown = f"{name}/{namespace}" if namespace else name
    who = f'{subject["kind"]} "{_shown(subject)}"'
    reason = (
        f'RBAC: allowed by {kind} "{shown}" of {reference["kind"]} "{reference["name"]}" to {who}'
    )
    for rule in _role_rules(store, role):
        yield rule, reason


def _role_rules(store: Store, role: Json | None) -> list[Json]:
    if role is None:
        return []
    found = list(role.get("rules") or [])
    for selector in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or []:
        wanted = (selector.get("matchLabels") or {}).items()
        for other in store.objects(kinds.CLUSTER_ROLES.storage_key):
            if wanted <= (other["metadata"].get("labels") or {}).items():
                found += other.get("rules") or []
    return found


def _shown(subject: Json) -> str:
    if subject["kind"] == "ServiceAccount":
        return f"{subject['name']}/{subject.get('namespace', '')}"
    return str(subject["name"])


def _is(subject: Json, user: User, namespace: str) -> bool:
    if subject["kind"] == "User":
        return bool(subject["name"] == user.name)
    if subject["kind"] == "Group":
        return subject["name"] in user.groups
    home = subject.get("namespace") or namespace
    return user.name == f"system:serviceaccount:{home}:{subject['name']}"


def _has(values: list[str] | None, wanted: str) -> bool:
    return values is not None and ("*" in values or wanted in values)


def _allows(rule: Json, asked: Attributes) -> bool:
    if not _has(rule.get("verbs"), asked.verb):
        return False
    if asked.path:
        return any(
            path in {"*", asked.path}
            or (path.endswith("*") and asked.path.startswith(path.rstrip("*")))
            for path in rule.get("nonResourceURLs") or []
        )
    if not _has(rule.get("apiGroups"), asked.group):
        return False
    full = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    resources = rule.get("resources") or []
    anywhere = asked.subresource and f"*/{asked.subresource}" in resources
    if not (_has(resources, full) or anywhere):
        return False
    names = rule.get("resourceNames")
    return not names or asked.name in names


def refusal(user: User, asked: Attributes) -> str:
    """Say what was refused, in the real server's words."""
    what = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    return (
        f'User "{user.name}" cannot {asked.verb} resource "{what}" in API group "{asked.group}"'
        f" {where}"
    )
