"""The tokens file: callers by token and certificate, their limits; read again when it changes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from loraland_inference.failures import Unauthenticated
from loraland_inference.limits import Limits
from loraland_inference.tokens import Caller, Tokens


def write(path: Path, *entries: tuple[str, str], **document: Any) -> Path:
    tokens = [
        {"sha256": hashlib.sha256(t.encode()).hexdigest(), "tenant": tenant}
        for t, tenant in entries
    ]
    path.write_text(json.dumps({"schemaVersion": 1, "tokens": tokens} | document))
    return path


def test_authenticate_returns_the_tokens_owner(tmp_path: Path) -> None:
    """A token maps to its tenant and roles."""
    tokens = Tokens(write(tmp_path / "t.json", ("one", "a"), ("two", "b")))

    assert tokens.authenticate("two") == Caller("b", frozenset({"inference"}))


def test_authenticate_returns_the_weight_of_a_tenant(tmp_path: Path) -> None:
    """A share of two is given in the file."""
    sha256 = hashlib.sha256(b"one").hexdigest()
    path = tmp_path / "t.json"
    entry = {"sha256": sha256, "tenant": "a", "weight": 2}
    path.write_text(json.dumps({"schemaVersion": 1, "tokens": [entry]}))

    assert Tokens(path).authenticate("one").weight == 2.0


@pytest.mark.parametrize("token", ["", "wrong", "one ", "é"])
def test_authenticate_refuses_a_token_that_is_not_known(tmp_path: Path, token: str) -> None:
    """Anything but the very token is refused."""
    tokens = Tokens(write(tmp_path / "t.json", ("one", "a")))

    with pytest.raises(Unauthenticated):
        tokens.authenticate(token)


def test_tokens_follow_their_file(tmp_path: Path) -> None:
    """A token that was taken out is refused at the next call."""
    path = write(tmp_path / "t.json", ("one", "a"))
    tokens = Tokens(path)
    tokens.authenticate("one")

    write(path, ("another", "a"))

    assert tokens.authenticate("another").tenant == "a"
    with pytest.raises(Unauthenticated):
        tokens.authenticate("one")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schemaVersion": 2, "tokens": []}'],
    ids=["empty", "broken", "list", "newer"],
)  # fmt: skip
def test_tokens_stay_in_force_when_their_file_is_broken(tmp_path: Path, text: str) -> None:
    """A half-written file locks nobody out."""
    path = write(tmp_path / "t.json", ("one", "a"))
    tokens = Tokens(path)
    tokens.authenticate("one")

    path.write_text(text)

    assert tokens.authenticate("one").tenant == "a"


def test_tokens_admit_nobody_when_there_is_no_file(tmp_path: Path) -> None:
    """No file, no access."""
    with pytest.raises(Unauthenticated):
        Tokens(tmp_path / "absent.json").authenticate("one")


@pytest.mark.parametrize(
    ("tenants", "expected"), [(["a", "b"], True), (["b"], False), (["*"], True)]
)
def test_caller_may_use_what_names_its_tenant_or_everyone(
    tenants: list[str], expected: bool
) -> None:
    """A star is everyone."""
    assert Caller("a", frozenset()).may_use(tenants) is expected


def write_document(path: Path, **document: Any) -> Path:
    path.write_text(json.dumps({"schemaVersion": 1} | document))
    return path


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, Limits(max_requests=4, requests_per_s=2.0, tokens_per_s=None, burst_s=5.0)),
        (
            {"a": {"maxConcurrentRequests": None, "tokensPerSecond": 100}},
            Limits(max_requests=None, requests_per_s=2.0, tokens_per_s=100.0, burst_s=5.0),
        ),
        (
            {"b": {"maxConcurrentRequests": 1}},
            Limits(max_requests=4, requests_per_s=2.0, tokens_per_s=None, burst_s=5.0),
        ),
    ],
    ids=["defaults", "own", "of-another"],
)
def test_limits_of_a_tenant_stand_over_the_defaults(
    tmp_path: Path, limits: dict[str, Any], expected: Limits
) -> None:
    """What is absent is the default's, what is null is unlimited."""
    sha256 = hashlib.sha256(b"one").hexdigest()
    path = write_document(
        tmp_path / "t.json",
        tokens=[{"sha256": sha256, "tenant": "a"}],
        defaultLimits={"maxConcurrentRequests": 4, "requestsPerSecond": 2, "burstSeconds": 5},
        limits=limits,
    )

    assert Tokens(path).authenticate("one").limits == expected


CERTIFICATES = [
    {"uri": "spiffe://land/ns/a/sa/app", "tenant": "a"},
    {"commonName": "robot", "tenant": "b", "roles": ["inference", "admin"]},
]


@pytest.mark.parametrize(
    ("uris", "names", "tenant"),
    [
        (["spiffe://land/ns/a/sa/app"], [], "a"),
        ([], ["robot"], "b"),
        (["spiffe://other", "spiffe://land/ns/a/sa/app"], ["robot"], "a"),
        (["spiffe://other"], ["robot"], "b"),
    ],
    ids=["uri", "common-name", "uri-first", "unknown-uri"],
)
def test_certificate_speaks_for_its_tenant(
    tmp_path: Path, uris: list[str], names: list[str], tenant: str
) -> None:
    """A URI counts before a common name."""
    tokens = Tokens(write_document(tmp_path / "t.json", certificates=CERTIFICATES))

    assert tokens.recognize(uris, names).tenant == tenant


@pytest.mark.parametrize(
    ("uris", "names"),
    [([], []), (["robot"], []), ([], ["spiffe://land/ns/a/sa/app"])],
    ids=["none", "name-as-uri", "uri-as-name"],
)
def test_certificate_of_no_known_name_is_nobodys(
    tmp_path: Path, uris: list[str], names: list[str]
) -> None:
    """A name counts only as what it was given as."""
    tokens = Tokens(write_document(tmp_path / "t.json", certificates=CERTIFICATES))

    with pytest.raises(Unauthenticated):
        tokens.recognize(uris, names)


def test_every_reading_is_told_once(tmp_path: Path) -> None:
    """Good, bad and gone: metrics and limits follow, and a log is not filled with one mistake."""
    path = write(tmp_path / "t.json", ("one", "a"))
    told: list[tuple[bool, frozenset[str]]] = []
    tokens = Tokens(path, lambda *args: told.append(args))
    for text in (None, "{", None):
        if text is not None:
            path.write_text(text)
        tokens.refresh()
        tokens.refresh()
    path.unlink()
    tokens.refresh()
    tokens.refresh()

    assert told == [(True, {"a"}), (False, {"a"}), (False, {"a"})]


def test_broken_file_is_not_quoted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever pasted a token into the file does not find it in the log."""
    path = write_document(tmp_path / "t.json", tokens=[{"sha256": "my-secret", "tenant": "a"}])

    Tokens(path).refresh()

    assert "tokens.0.sha256" in caplog.text
    assert "my-secret" not in caplog.text
