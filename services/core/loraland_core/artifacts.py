"""Layout of artifacts in S3, the manifest and its digest. No I/O.

``manifest.json`` is written last: its presence is the commit. The digest covers the served files
only, so that attachments (metrics, model card) never change what an adapter *is*.
"""

import hashlib
import json
import re
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from loraland_core import conditions
from loraland_core.errors import ArtifactInvalid
from loraland_core.prompts import PROMPT_FILE
from loraland_core.resources.common import Model

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
RESULT_FILE = "result.json"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# In the order of the digest.
SERVED_FILES = (CONFIG_FILE, WEIGHTS_FILE, PROMPT_FILE)
REFUSED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
MAX_MANIFEST_BYTES = 256 * 1024
MAX_ARTIFACT_BYTES = 8 * 1024**3

_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_FILE_PATH = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")


class _Document(Model):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    def to_json(self) -> bytes:
        document = self.model_dump(by_alias=True, exclude_none=True)
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


D = TypeVar("D", bound=_Document)
# What conditions and heartbeats quote; whoever wrote the document need not be a friend.
Word = Annotated[str, Field(max_length=256)]


class File(_Document):
    path: str = Field(pattern=_FILE_PATH.pattern, max_length=256)
    size_bytes: int = Field(ge=0, le=MAX_ARTIFACT_BYTES)
    sha256: str = Field(pattern=_DIGEST.pattern)


class Manifest(_Document):
    """What an artifact holds and what it was made for."""

    schema_version: int = SCHEMA_VERSION
    base_model: Word
    resolved_revision: Word
    training_precision: Word
    rank: int = Field(ge=1, le=4096)
    alpha: float
    target_modules: list[Word] = Field(max_length=256)
    dtype: Word
    files: list[File] = Field(max_length=64)
    created_at: Word
    job_uid: Word | None = None

    @property
    def digest(self) -> str:
        return digest(self.base_model, self.resolved_revision, self.files)

    @property
    def served_files(self) -> list[File]:
        return [f for f in self.files if f.path in SERVED_FILES]

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.served_files)


class Score(_Document):
    name: Word
    base: float | None = None
    tuned: float | None = None


class Result(_Document):
    """What a finished job leaves for the operator and for its own retries."""

    schema_version: int = SCHEMA_VERSION
    job_uid: str
    uri: str
    digest: str = Field(pattern=_DIGEST.pattern)
    size_bytes: int
    metrics: list[Score] = Field(max_length=16)
    num_evaluated: int
    # Where the rows came from and what was cut of them, for people.
    data: str = Field(default="", max_length=4096)
    gate_passed: bool
    gate_message: str = Field(default="", max_length=4096)
    created_at: Word
    train_seconds: float | None = None
    final_loss: float | None = None
    total_steps: int | None = None


def digest(base_model: str, resolved_revision: str, files: list[File]) -> str:
    """Return the content address: sha256 over canonical JSON of the served files."""
    served = sorted((f for f in files if f.path in SERVED_FILES), key=lambda f: f.path)
    document = {
        "schemaVersion": SCHEMA_VERSION,
        "baseModel": base_model,
        "resolvedRevision": resolved_revision,
        "files": [[f.path, f.size_bytes, f.sha256] for f in served],
    }
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def parse_manifest(data: bytes, *, expected_digest: str | None = None) -> Manifest:
    """Read and check a manifest; raise ``ArtifactInvalid`` with a reason of its own."""
    manifest = _parse(Manifest, data, MANIFEST_FILE)
    paths = [f.path for f in manifest.files]
    refused = [p for p in paths if p.endswith(REFUSED_SUFFIXES)]
    if refused:
        raise ArtifactInvalid(
            f"{refused[0]} may hold pickled code; only safetensors are read", field=MANIFEST_FILE
        )
    missing = [p for p in SERVED_FILES if p not in paths]
    if missing:
        raise ArtifactInvalid(f"lists no {', '.join(missing)}", field=MANIFEST_FILE)
    if len(set(paths)) != len(paths):
        raise ArtifactInvalid("lists a file twice", field=MANIFEST_FILE)
    if expected_digest is not None and manifest.digest != expected_digest:
        raise ArtifactInvalid(
            f"its files give digest {manifest.digest}, not {expected_digest}",
            field=MANIFEST_FILE,
            reason="DigestMismatch",
        )
    return manifest


def parse_result(data: bytes) -> Result:
    return _parse(Result, data, RESULT_FILE)


def _parse(model: type[D], data: bytes, name: str) -> D:
    if len(data) > MAX_MANIFEST_BYTES:
        raise ArtifactInvalid(f"{len(data)} bytes, more than {MAX_MANIFEST_BYTES}", field=name)
    try:
        document: Any = json.loads(data)
    # A few bytes may nest deeper than the parser goes.
    except (ValueError, RecursionError) as error:
        raise ArtifactInvalid(f"is not JSON: {error}", field=name) from error
    version = document.get("schemaVersion") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise ArtifactInvalid("has no schemaVersion", field=name)
    if version > SCHEMA_VERSION:
        raise ArtifactInvalid(
            f"schemaVersion {version} is newer than {SCHEMA_VERSION}; upgrade this part", field=name
        )
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactInvalid(f"{where}: {first['msg']}", field=name) from error


def now_text(now: datetime) -> str:
    return conditions.timestamp(now)


def adapter_prefix(namespace: str, name: str, digest_: str) -> str:
    """Return the key prefix, below the platform's own prefix, of one version of an adapter."""
    return f"adapters/{namespace}/{name}/{digest_}/"


def job_prefix(job_uid: str) -> str:
    return f"jobs/{job_uid}/"


def result_key(job_uid: str) -> str:
    return f"{job_prefix(job_uid)}{RESULT_FILE}"


def checkpoint_prefix(job_uid: str, step: int) -> str:
    return f"{job_prefix(job_uid)}checkpoints/step-{step:08d}/"
