"""Who calls: a token in the metadata, or the certificate of the connection."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from loraland_inference import auth
from loraland_inference.failures import PermissionDenied, Unauthenticated
from loraland_inference.tokens import Caller, Tokens

BEARER = (("authorization", "Bearer one"),)
CERTIFICATE = {"x509_pem_cert": [b"PEM"], "peer_uri": [b"spiffe://land/app"]}


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    """A token of the tenant a, a certificate of the tenant b."""
    path = tmp_path / "t.json"
    sha256 = hashlib.sha256(b"one").hexdigest()
    document = {
        "schemaVersion": 1,
        "tokens": [{"sha256": sha256, "tenant": "a"}],
        "certificates": [{"uri": "spiffe://land/app", "tenant": "b"}],
    }
    path.write_text(json.dumps(document))
    return Tokens(path)


@pytest.mark.parametrize(
    ("metadata", "peer", "tenant"),
    [(BEARER, {}, "a"), ((), CERTIFICATE, "b"), (BEARER, CERTIFICATE, "a")],
    ids=["token", "certificate", "both"],
)
def test_caller_is_whom_token_or_certificate_names(
    tokens: Tokens, metadata: Any, peer: Any, tenant: str
) -> None:
    """A token counts before a certificate."""
    assert auth.identify(tokens, metadata, peer).tenant == tenant


@pytest.mark.parametrize(
    "metadata",
    [None, (), (("authorization", "one"),), (("authorization", "Basic one"),),
     (("authorization", "Bearer "),), (("authorization", "Bearer " + "x" * 5000),), BEARER * 2],
    ids=["none", "empty", "no-scheme", "basic", "no-token", "too-long", "twice"],
)  # fmt: skip
def test_metadata_of_another_form_is_refused(tokens: Tokens, metadata: Any) -> None:
    """Only one ``authorization: Bearer <token>`` is taken."""
    with pytest.raises(Unauthenticated):
        auth.identify(tokens, metadata, {})


def test_wrong_token_is_refused_whatever_the_certificate(tokens: Tokens) -> None:
    """A caller who says who it is wants to be taken at its word."""
    with pytest.raises(Unauthenticated):
        auth.identify(tokens, (("authorization", "Bearer wrong"),), CERTIFICATE)


def test_names_of_a_certificate_that_nobody_verified_count_for_nothing(tokens: Tokens) -> None:
    """Without a certificate there are no names."""
    with pytest.raises(Unauthenticated):
        auth.identify(tokens, (), {"peer_uri": [b"spiffe://land/app"]})


@pytest.mark.parametrize(
    "method",
    ["/loraland.inference.v1.Admin/Drain", "/other.Service/Call"],
    ids=["admin", "unknown-service"],
)
def test_service_wants_its_role(method: str) -> None:
    """A service that nobody has given a role is closed."""
    with pytest.raises(PermissionDenied):
        auth.check_role(Caller("a", frozenset({"inference"})), method)
