"""Is an artifact what its record says, and made for this base model? The judgement alone."""

import asyncio
import threading
from typing import Any

import pytest
from loraland_core import artifacts
from loraland_core.artifacts import File, Manifest
from loraland_core.errors import NotFound, Unavailable
from loraland_core.keys import AdapterRecord
from loraland_inference.adapters import verification
from loraland_inference.adapters.registry import Registry
from loraland_inference.adapters.verification import Expectation, judge
from waiting import until

EXPECTED = Expectation(base_model="tiny", resolved_revision="r1", max_rank=16)


def build_manifest(**changes: Any) -> Manifest:
    names = [*artifacts.SERVED_FILES, *changes.pop("more", [])]
    files = [File(path=n, size_bytes=1, sha256="0" * 64) for n in names]
    fields: dict[str, Any] = {
        "base_model": "tiny", "resolved_revision": "r1", "training_precision": "nf4", "rank": 8,
        "alpha": 16, "target_modules": ["q_proj"], "dtype": "float32", "files": files,
        "created_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return Manifest(**fields | changes)


def verdict(manifest: Manifest, data: bytes | None = None) -> str | None:
    record = AdapterRecord(
        base_model="tiny", digest=manifest.digest, uri="s3://b/p/", size_bytes=1, rank=8,
        tenants=["t"],
    )  # fmt: skip
    rejection = judge(record, manifest.to_json() if data is None else data, EXPECTED)
    return rejection.reason if rejection else None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"base_model": "other"}, "BaseModelMismatch"),
        ({"resolved_revision": "r2"}, "BaseModelMismatch"),
        ({"rank": 17}, "RankOverLimit"),
        ({"more": ["pytorch_model.bin"]}, "ArtifactInvalid"),
    ],
    ids=["good", "base-model", "revision", "rank", "pickle"],
)
def test_judge_names_the_reason(changes: dict[str, Any], reason: str | None) -> None:
    """Each sort of misfit has a reason of its own."""
    assert verdict(build_manifest(**changes)) == reason


def test_judge_refuses_a_manifest_that_gives_another_digest() -> None:
    """A manifest that was changed after publication is not what was published."""
    other = build_manifest(files=[
        File(path=n, size_bytes=2, sha256="0" * 64) for n in artifacts.SERVED_FILES
    ])  # fmt: skip

    assert verdict(build_manifest(), data=other.to_json()) == "DigestMismatch"


def test_judge_refuses_an_artifact_without_a_manifest() -> None:
    """No manifest, no commit."""
    record = AdapterRecord(
        base_model="tiny", digest="d", uri="s3://b/p/", size_bytes=1, rank=8, tenants=["t"]
    )

    rejection = judge(record, None, EXPECTED)

    assert rejection is not None
    assert rejection.reason == "ManifestMissing"


class SlowStore:
    """Has one manifest; another never answers, and a third is away at first."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.gate = threading.Event()
        self.faults = 1

    def key(self, uri: str) -> str:
        return uri

    def read(self, key: str, *, max_bytes: int) -> bytes:
        if "hangs" in key:
            self.gate.wait(10)
        if "away" in key and self.faults:
            self.faults -= 1
            raise Unavailable("away")
        if "absent" in key:
            raise NotFound(key)
        return self._manifest.to_json()[:max_bytes]


async def test_verification_goes_on_beside_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each record gets its verdict by itself; an outage is tried again, not held against it."""
    monkeypatch.setattr(verification, "RETRY_S", 0.02)
    manifest, registry = build_manifest(), Registry()
    store = SlowStore(manifest)
    registry.replace({f"ns/{n}": record_of(manifest, n) for n in ("hangs", "away", "absent")}, 1)
    task = asyncio.create_task(verification.run(registry, store, EXPECTED))  # type: ignore[arg-type]

    await until(lambda: unverified_ids(registry) == ["ns/hangs"])
    store.gate.set()
    task.cancel()

    reasons = {i: r.reason for i, r in registry.rejections().items()}
    assert reasons == {"ns/absent": "ManifestMissing"}


def unverified_ids(registry: Registry) -> list[str]:
    return [adapter_id for adapter_id, _ in registry.unverified()]


def record_of(manifest: Manifest, name: str) -> AdapterRecord:
    return AdapterRecord(
        base_model="tiny", digest=manifest.digest, uri=f"s3://b/{name}/", size_bytes=1, rank=8,
        tenants=["ns"], revision=1,
    )  # fmt: skip
