"""Artifacts that are not what they claim are refused by name, and others go on."""

import dataclasses
import hashlib
import io
import json
import struct
from typing import Any

import pytest
from land import Land, condition
from loraland_core import artifacts
from loraland_core.store import Store
from loraland_local import platform


@dataclasses.dataclass
class Shelf:
    """The stack's artifact store, and the small adapter's files in it."""

    store: Store
    files: dict[str, bytes]
    manifest: dict[str, Any]

    def list_files(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
        """Return the manifest's entries for these contents."""
        return [{"path": path, **_measure(content)} for path, content in files.items()]

    def put(self, name: str, files: dict[str, bytes], **changes: Any) -> str:
        """Upload an artifact with a manifest of its own and return its digest."""
        manifest = {**self.manifest, "files": self.list_files(files), **changes}
        data = json.dumps(manifest).encode()
        digest = artifacts.Manifest.model_validate(manifest).digest
        prefix = artifacts.adapter_prefix("default", name, digest)
        for path, content in files.items():
            self.store.write(prefix + path, content)
        self.store.write(prefix + artifacts.MANIFEST_FILE, data)
        return digest


def _measure(data: bytes) -> dict[str, Any]:
    return {"sizeBytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.fixture(scope="module")
def shelf(land: Land, small_adapter: str, store: Store) -> Shelf:
    prefix = store.key(land.get("finetunejob", small_adapter)["status"]["artifact"]["uri"])
    manifest = json.loads(store.read(prefix + artifacts.MANIFEST_FILE))
    files = {
        entry["path"]: store.read(prefix + entry["path"], max_bytes=10**9)
        for entry in manifest["files"]
    }
    return Shelf(store, files, manifest)


def adapter(name: str, digest: str) -> dict[str, Any]:
    return {
        "apiVersion": "loraland.dev/v1alpha1",
        "kind": "Adapter",
        "metadata": {"name": name},
        "spec": {
            "baseModel": platform.BASE_MODEL,
            "source": {"artifact": {"digest": digest}},
        },
    }


def with_another_prompt(files: dict[str, bytes], words: str) -> dict[str, bytes]:
    """Give the artifact a digest of its own, so that nothing of it is on the node yet."""
    prompt = json.loads(files["prompt.json"])
    return {**files, "prompt.json": json.dumps({**prompt, "template": words}).encode()}


def zero_b(data: bytes) -> bytes:
    """Return the safetensors file with every B matrix zero."""
    (header_size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_size])
    changed = io.BytesIO(data)
    for name, tensor in header.items():
        if "lora_B" in name:
            begin, end = tensor["data_offsets"]
            changed.seek(8 + header_size + begin)
            changed.write(bytes(end - begin))
    return changed.getvalue()


def refuse(land: Land, name: str, digest: str, *kinds: str) -> dict[str, Any]:
    """Apply the Adapter, wait for one of the conditions to fail, return that condition."""
    applied = land.apply(adapter(name, digest))
    assert applied.returncode == 0, applied.stderr
    land.wait("adapter", name, "Ready=False", timeout_s=60)
    found: dict[str, Any] = {}

    def is_refused() -> bool:
        resource = land.get("adapter", name)
        failed = [c for c in (condition(resource, kind) for kind in kinds) if c]
        found.update(next((c for c in failed if c["status"] == "False"), {}))
        return found.get("reason") not in (None, "Pending", "WaitingForReplicas", "NoLiveReplica")

    land.wait_until(is_refused, timeout_s=60)
    return found


def test_one_changed_byte_is_refused_and_others_go_on(land: Land, shelf: Shelf) -> None:
    """A replica refuses weights that do not match their manifest; its neighbour still answers."""
    files = with_another_prompt(shelf.files, "{message} changed byte\n")
    digest = shelf.put("one-byte", files)
    weights = bytearray(files[artifacts.WEIGHTS_FILE])
    weights[-1] ^= 1
    prefix = artifacts.adapter_prefix("default", "one-byte", digest)
    shelf.store.write(prefix + artifacts.WEIGHTS_FILE, bytes(weights))
    applied = land.apply(adapter("one-byte", digest))
    assert applied.returncode == 0, applied.stderr
    answer = land.loraland("generate", "-a", "one-byte", "--field", "message=x")
    neighbour = land.loraland("generate", "-a", "small", "x", "--max-tokens", "2")

    assert (answer.returncode, "FAILED_PRECONDITION" in answer.stderr) == (1, True), answer.stderr
    assert neighbour.returncode == 0, neighbour.stderr


def test_adapter_without_its_effect_fails_the_comparison(land: Land, shelf: Shelf) -> None:
    """With B set to zero the adapter is the base model, and the demo's comparison says so."""
    files = {**shelf.files, artifacts.WEIGHTS_FILE: zero_b(shelf.files[artifacts.WEIGHTS_FILE])}
    land.apply(adapter("zeroed", shelf.put("zeroed", files)))
    land.wait("adapter", "zeroed", "Ready", timeout_s=60)
    result = land.loraland("compare", "small", "--adapter", "zeroed")

    assert (result.returncode, "no better than the base model's" in result.stderr) == (1, True)


def test_missing_manifest_is_refused(land: Land, shelf: Shelf) -> None:
    """Without its manifest an upload was never completed."""
    found = refuse(land, "uncommitted", "ab" * 32, "ArtifactVerified")

    assert found["reason"] == "ManifestMissing"


def test_pickle_is_refused(land: Land, shelf: Shelf) -> None:
    """A file that may hold code is named and refused, whatever else is there."""
    files = with_another_prompt(shelf.files, "{message} pickle\n")
    files["adapter_model.bin"] = b"\x80\x04."
    digest = shelf.put("pickled", files)
    found = refuse(land, "pickled", digest, "ArtifactVerified")

    assert "adapter_model.bin" in found["message"]


def test_another_base_model_is_refused(land: Land, shelf: Shelf) -> None:
    """An adapter of another model would answer nonsense."""
    digest = shelf.put("foreign", shelf.files, baseModel="another-model")
    found = refuse(land, "foreign", digest, "ArtifactVerified", "Compatible")

    assert (found["type"], found["reason"]) == ("Compatible", "BaseModelMismatch")


def test_wrong_digest_is_refused(land: Land, shelf: Shelf) -> None:
    """A manifest that gives another digest than the Adapter names is not what was asked for."""
    wanted = "cd" * 32
    prefix = artifacts.adapter_prefix("default", "misnamed", wanted)
    shelf.store.write(prefix + artifacts.MANIFEST_FILE, json.dumps(shelf.manifest).encode())
    found = refuse(land, "misnamed", wanted, "ArtifactVerified")

    assert found["reason"] == "DigestMismatch"
