"""The manifest commits an artifact; its digest is what the artifact is."""

import hashlib
import json

import pytest
from loraland_core import artifacts
from loraland_core.errors import ArtifactInvalid


def _file(path: str, content: str = "a", size_bytes: int = 1) -> artifacts.File:
    return artifacts.File(path=path, size_bytes=size_bytes, sha256=content * 64)


def _manifest(**changes: object) -> artifacts.Manifest:
    values: dict[str, object] = {
        "base_model": "tiny",
        "resolved_revision": "abc",
        "training_precision": "nf4",
        "rank": 8,
        "alpha": 16,
        "target_modules": ["q_proj"],
        "dtype": "float32",
        "files": [_file(path) for path in artifacts.SERVED_FILES],
        "created_at": "2026-01-01T00:00:00Z",
    }
    return artifacts.Manifest.model_validate(values | changes)


def test_digest_is_the_documented_hash() -> None:
    """The form is pinned, written out by hand: a change of it would orphan every artifact."""
    sha256 = "a" * 64
    document = (
        '{"baseModel":"tiny","files":['
        f'["adapter_config.json",1,"{sha256}"],["adapter_model.safetensors",1,"{sha256}"],'
        f'["prompt.json",1,"{sha256}"]],"resolvedRevision":"abc","schemaVersion":1}}'
    )

    assert hashlib.sha256(document.encode()).hexdigest() == _manifest().digest


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        pytest.param({"created_at": "2027-01-01T00:00:00Z"}, True, id="time-does-not-count"),
        pytest.param({"rank": 4}, True, id="rank-is-in-the-files-already"),
        pytest.param(
            {"files": [*_manifest().files, _file("README.md")]}, True, id="attachments-do-not-count"
        ),
        pytest.param({"files": _manifest().files[::-1]}, True, id="order-does-not-count"),
        pytest.param({"base_model": "other"}, False, id="base-model"),
        pytest.param({"resolved_revision": "other"}, False, id="revision"),
        pytest.param(
            {"files": [*_manifest().files[:2], _file("prompt.json", "b")]}, False, id="content"
        ),
        pytest.param(
            {"files": [*_manifest().files[:2], _file("prompt.json", size_bytes=2)]},
            False,
            id="size",
        ),
    ],
)
def test_digest_covers_what_is_served(changes: dict[str, object], same: bool) -> None:
    """Served files and the base model make the digest, nothing else does."""
    changed = _manifest(**changes).digest

    assert same == (changed == _manifest().digest)


def test_manifest_survives_a_round_trip() -> None:
    """What the trainer writes is what every reader sees."""
    manifest = _manifest()

    again = artifacts.parse_manifest(manifest.to_json(), expected_digest=manifest.digest)

    assert manifest == again


@pytest.mark.parametrize(
    ("document", "reason", "part"),
    [
        pytest.param(b"{", "ArtifactInvalid", "is not JSON", id="cut"),
        pytest.param(b"[]", "ArtifactInvalid", "no schemaVersion", id="a-list"),
        pytest.param(b"[" * 100_000, "ArtifactInvalid", "is not JSON", id="deep"),
        pytest.param(b'{"schemaVersion": 2}', "ArtifactInvalid", "newer than 1", id="newer"),
        pytest.param(b'{"schemaVersion": 1}', "ArtifactInvalid", "baseModel", id="no-base-model"),
        pytest.param(
            _manifest(files=[*_manifest().files, _file("optimizer.pt")]).to_json(),
            "ArtifactInvalid",
            "optimizer.pt may hold pickled code",
            id="pickle",
        ),
        pytest.param(
            _manifest(files=_manifest().files[:1]).to_json(),
            "ArtifactInvalid",
            "lists no adapter_model.safetensors, prompt.json",
            id="file-missing",
        ),
        pytest.param(
            _manifest(base_model="other").to_json(), "DigestMismatch", "not ", id="other-digest"
        ),
        pytest.param(
            json.dumps(
                json.loads(_manifest().to_json())
                | {"files": [{"path": "../etc/passwd", "sizeBytes": 1, "sha256": "a" * 64}]}
            ).encode(),
            "ArtifactInvalid",
            "files.0.path",
            id="path-that-climbs",
        ),
        pytest.param(
            json.dumps(
                json.loads(_manifest().to_json()) | {"resolvedRevision": "x" * 50_000}
            ).encode(),
            "ArtifactInvalid",
            "resolvedRevision: String should have at most 256",
            id="too-long-to-quote",
        ),
        pytest.param(b" " * (256 * 1024 + 1), "ArtifactInvalid", "more than", id="too-large"),
    ],
)
def test_bad_manifest_is_refused(document: bytes, reason: str, part: str) -> None:
    """Each sort of bad manifest has its reason and says what is wrong."""
    with pytest.raises(ArtifactInvalid) as caught:
        artifacts.parse_manifest(document, expected_digest=_manifest().digest)

    assert (reason, True) == (caught.value.reason, part in str(caught.value))


def test_keys_lie_under_namespace_and_uid() -> None:
    """The layout is a contract between trainer, operator and replicas."""
    assert artifacts.adapter_prefix("shop", "desk", "d") == "adapters/shop/desk/d/"
    assert artifacts.result_key("u-1") == "jobs/u-1/result.json"
    assert artifacts.checkpoint_prefix("u-1", 7) == "jobs/u-1/checkpoints/step-00000007/"
