"""Who is asking: the admin's token, service-account tokens (JWT), impersonation. No I/O."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from . import clock, errors, kinds
from .storage import Store

Json = dict[str, Any]

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUTHENTICATED = "system:authenticated"
MASTERS = "system:masters"
MIN_LIFETIME_S, DEFAULT_LIFETIME_S = 600, 3600


@dataclasses.dataclass(frozen=True)
class User:
    """A caller, as role bindings name it."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def is_admin(self) -> bool:
        return MASTERS in self.groups

    def info(self) -> Json:
        found: Json = {"username": self.name}
        if self.uid:
            found["uid"] = self.uid
        found["groups"] = list(self.groups)
        if self.extra:
            found["extra"] = {key: list(values) for key, values in self.extra}
        return found


ADMIN = User("kubernetes-admin", (MASTERS, AUTHENTICATED))


def service_account(namespace: str, name: str, uid: str = "") -> User:
    return User(
        f"system:serviceaccount:{namespace}:{name}",
        ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED),
        uid,
    )


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Tokens:
    """Mints and reads tokens; the secret stays on this machine."""

    def __init__(self, *, admin_token: str, secret: bytes, store: Store) -> None:
        self._admin_token = admin_token.encode()
        self._secret = secret
        self._store = store

    def _signature(self, text: str) -> str:
        return _encode(hmac.digest(self._secret, text.encode(), hashlib.sha256))

    def mint(self, account: Json, spec: Json) -> tuple[str, str]:
        """Return a token for a service account and when it expires."""
        meta = account["metadata"]
        lifetime_s = max(int(spec.get("expirationSeconds") or DEFAULT_LIFETIME_S), MIN_LIFETIME_S)
        now = clock.epoch_s()
        private: Json = {
            "namespace": meta["namespace"],
            "serviceaccount": {"name": meta["name"], "uid": meta["uid"]},
        }
        bound = spec.get("boundObjectRef") or {}
        if bound.get("kind") == "Pod":
            private["pod"] = {"name": bound.get("name"), "uid": bound.get("uid")}
        claims = {
            "aud": spec.get("audiences") or [ISSUER],
            "exp": now + lifetime_s,
            "iat": now,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": private,
            "nbf": now,
            "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
        }
        head = _encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        text = f"{head}.{_encode(json.dumps(claims).encode())}"
        return f"{text}.{self._signature(text)}", clock.after(lifetime_s)

    def user(self, token: str, audiences: Sequence[str] = (ISSUER,)) -> User | None:
        """Return whose token this is; None if it is nobody's (any more), or for somebody else."""
        # Headers may hold anything, but a token is ASCII.
        if not token.isascii():
            return None
        if hmac.compare_digest(token.encode(), self._admin_token):
            return ADMIN
        text, _, signature = token.rpartition(".")
        if not text or not hmac.compare_digest(self._signature(text), signature):
            return None
        claims = json.loads(_decode(text.partition(".")[2]))
        if claims["exp"] < clock.epoch_s() or not {*claims["aud"]} & {*audiences}:
            return None
        return self._holder(claims["kubernetes.io"])

    def _holder(self, private: Json) -> User | None:
        """Return the account that a token is bound to, if it and its pod are there still."""
        name, namespace = private["serviceaccount"]["name"], private["namespace"]
        account = self._store.get(kinds.SERVICE_ACCOUNTS.storage_key, (namespace, name))
        if account is None or account["metadata"]["uid"] != private["serviceaccount"]["uid"]:
            return None
        pod = private.get("pod")
        if pod is not None:
            found = self._store.get(kinds.PODS.storage_key, (namespace, pod["name"]))
            if found is None or found["metadata"]["uid"] != pod["uid"]:
                return None
        return service_account(namespace, name, account["metadata"]["uid"])

    def caller(self, headers: Mapping[str, str]) -> User:
        """Authenticate a request by its bearer token."""
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        user = self.user(token.strip()) if scheme.lower() == "bearer" and token else None
        if user is None:
            raise errors.unauthorized()
        return user


def impersonated(name: str, groups: list[str]) -> User:
    """Return the user that a request asks to act as."""
    parts = name.split(":")
    if name.startswith("system:serviceaccount:") and len(parts) == 4 and not groups:
        return service_account(parts[2], parts[3])
    return User(name, (*groups, AUTHENTICATED))
