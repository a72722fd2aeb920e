"""Tokens: hashes in a file, read again when it changes, compared without telling."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from loraland_inference.auth import Caller, Tokens, _bearer
from loraland_inference.failures import Unauthenticated


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
    "metadata",
    [None, (), (("authorization", "one"),), (("authorization", "Basic one"),),
     (("authorization", "Bearer "),), (("authorization", "Bearer " + "x" * 5000),)],
    ids=["none", "empty", "no-scheme", "basic", "no-token", "too-long"],
)  # fmt: skip
def test_bearer_refuses_metadata_of_another_form(metadata: Any) -> None:
    """Only ``authorization: Bearer <token>`` is taken."""
    with pytest.raises(Unauthenticated):
        _bearer(metadata)


@pytest.mark.parametrize(
    ("tenants", "expected"), [(["a", "b"], True), (["b"], False), (["*"], True)]
)
def test_caller_may_use_what_names_its_tenant_or_everyone(
    tenants: list[str], expected: bool
) -> None:
    """A star is everyone."""
    assert Caller("a", frozenset()).may_use(tenants) is expected
