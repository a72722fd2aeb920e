"""Who calls, and what they may do: a bearer token, or the certificate of the connection. No I/O.

``gate`` asks on every request. Without a role that a service wants, nothing of it is answered.
"""

import contextvars
from collections.abc import Mapping, Sequence
from typing import Any

from loraland_inference.failures import PermissionDenied, Unauthenticated
from loraland_inference.tokens import Caller, Tokens

MAX_TOKEN_BYTES = 4096
_ROLE_BY_SERVICE = {
    "loraland.inference.v1.Inference": "inference",
    "loraland.inference.v1.Admin": "admin",
}
# As gRPC names the parts of a certificate that it has verified.
_URI, _COMMON_NAME = "peer_uri", "x509_common_name"
_CERTIFICATE = "x509_pem_cert"

current: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")


def caller() -> Caller:
    """Return who makes the current request; the gate has set it."""
    return current.get()


def identify(tokens: Tokens, metadata: Any, peer: Mapping[str, Sequence[bytes]]) -> Caller:
    """Return who calls; raise ``Unauthenticated``. A token counts before a certificate."""
    values = [value for key, value in metadata or () if key == "authorization"]
    if values:
        return tokens.authenticate(_bearer(values))
    if peer.get(_CERTIFICATE):
        return tokens.recognize(_texts(peer, _URI), _texts(peer, _COMMON_NAME))
    raise Unauthenticated("send the metadata `authorization: Bearer <token>`")


def check_role(owner: Caller, method: str) -> None:
    """Raise ``PermissionDenied`` unless the caller may call ``/package.Service/Method``."""
    role = _ROLE_BY_SERVICE.get(method.split("/")[1], "")
    if role not in owner.roles:
        raise PermissionDenied(f"this call wants the role {role!r}")


def _texts(peer: Mapping[str, Sequence[bytes]], key: str) -> list[str]:
    return [value.decode(errors="replace") for value in peer.get(key, ())]


def _bearer(values: Sequence[Any]) -> str:
    scheme, _, token = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated("`authorization` is not of the form `Bearer <token>`")
    return token.strip()
