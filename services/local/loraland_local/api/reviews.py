"""Questions that are asked by creating an object: access, rules, tokens, who am I. No I/O."""

from __future__ import annotations

from typing import Any

from . import access, clock
from .identity import ISSUER, Tokens, User, service_account
from .kinds import ResourceType
from .storage import Store

Json = dict[str, Any]


def _attributes(spec: Json) -> access.Attributes:
    asked = spec.get("resourceAttributes")
    if asked is None:
        path = spec.get("nonResourceAttributes") or {}
        return access.Attributes(path.get("verb", ""), path=path.get("path", ""))
    return access.Attributes(
        verb=asked.get("verb", ""),
        group=asked.get("group", ""),
        resource=asked.get("resource", ""),
        subresource=asked.get("subresource", ""),
        namespace=asked.get("namespace", ""),
        name=asked.get("name", ""),
    )


def _access(store: Store, user: User, spec: Json) -> Json:
    decision = access.decide(store, user, _attributes(spec))
    status: Json = {"allowed": decision.allowed}
    if decision.reason:
        status["reason"] = decision.reason
    return status


def _subject(spec: Json) -> User:
    name, groups = spec.get("user", ""), tuple(spec.get("groups") or ())
    parts = name.split(":")
    if name.startswith("system:serviceaccount:") and len(parts) == 4:
        account = service_account(parts[2], parts[3])
        return User(account.name, account.groups + groups)
    return User(name, groups)


def _rules(store: Store, user: User, spec: Json) -> Json:
    found = access.rules_of(store, user, spec.get("namespace", ""))
    return {
        "resourceRules": [rule for rule in found if rule.get("resources")],
        "nonResourceRules": [rule for rule in found if rule.get("nonResourceURLs")],
        "incomplete": False,
    }


def _token(tokens: Tokens, spec: Json) -> Json:
    audiences = spec.get("audiences") or [ISSUER]
    user = tokens.user(spec.get("token", ""), audiences)
    if user is None:
        return {"user": {}, "error": "invalid bearer token"}
    return {
        "authenticated": True,
        "user": user.info(),
        "audiences": audiences,
    }


def answer(resource: ResourceType, obj: Json, *, store: Store, tokens: Tokens, user: User) -> Json:
    """Fill in the status of a review."""
    spec = obj.get("spec") or {}
    status: Json
    if resource.kind == "SelfSubjectAccessReview":
        status = _access(store, user, spec)
    elif resource.kind in {"SubjectAccessReview", "LocalSubjectAccessReview"}:
        status = _access(store, _subject(spec), spec)
    elif resource.kind == "SelfSubjectRulesReview":
        status = _rules(store, user, spec)
    elif resource.kind == "TokenReview":
        status = _token(tokens, spec)
    else:
        status = {"userInfo": user.info()}
    meta = {**(obj.get("metadata") or {}), "creationTimestamp": clock.now()}
    if resource.kind != "SelfSubjectReview":
        meta.pop("creationTimestamp")
    return {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": meta,
        "spec": spec,
        "status": status,
    }


def token_request(tokens: Tokens, account: Json, obj: Json) -> Json:
    """Answer a TokenRequest for a service account."""
    spec = dict(obj.get("spec") or {})
    token, expires = tokens.mint(account, spec)
    spec.setdefault("audiences", [ISSUER])
    spec.setdefault("expirationSeconds", 3600)
    meta = {
        "name": account["metadata"]["name"],
        "namespace": account["metadata"]["namespace"],
        "creationTimestamp": clock.now(),
    }
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": meta,
        "spec": spec,
        "status": {"token": token, "expirationTimestamp": expires},
    }
