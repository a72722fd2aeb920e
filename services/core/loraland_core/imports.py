"""The contract between operator and import pod: what to fetch, and what came of it. No I/O.

An import brings an adapter's files from S3, a Hub or a volume below the namespace's own prefix of
the platform's bucket. It runs in the Adapter's namespace, with that namespace's credentials; it ends
with the exit codes of ``jobspec`` and leaves its result in the artifact store.
"""

import hashlib
import json
from typing import TypeVar

from pydantic import ValidationError

from loraland_core import artifacts
from loraland_core.catalogue import BaseModelEntry
from loraland_core.errors import InvalidInput
from loraland_core.resources.adapter import SourceSpec
from loraland_core.resources.common import Model
from loraland_core.store import StoreConfig

M = TypeVar("M", bound=Model)

SCHEMA_VERSION = 1
IMPORT_FILE = "/etc/loraland/import.json"
SOURCE_MOUNT = "/mnt/source"
# The source's credentials, beside those of the platform's bucket.
SOURCE_ENV_PREFIX = "SOURCE_"


class ImportSpec(Model):
    """Everything that an import pod needs to know; holds no secret."""

    schema_version: int = SCHEMA_VERSION
    name: str
    namespace: str
    uid: str
    base_model: str
    entry: BaseModelEntry
    source: SourceSpec
    store: StoreConfig

    def to_json(self) -> str:
        document = self.model_dump(by_alias=True, exclude_none=True)
        return json.dumps(document, sort_keys=True, ensure_ascii=False)

    @property
    def result_key(self) -> str:
        return result_key(self.uid, source_hash(self.source))


class ImportResult(Model):
    """What an import leaves for the operator and for its own retries."""

    schema_version: int = SCHEMA_VERSION
    digest: str
    uri: str

    def to_json(self) -> bytes:
        return (json.dumps(self.model_dump(by_alias=True), sort_keys=True) + "\n").encode()


def source_hash(source: SourceSpec) -> str:
    """Return what tells one source from another; where its credentials lie has no part in that."""
    document = source.model_dump(by_alias=True, exclude_none=True)
    for part in document.values():
        part.pop("credentialsSecretRef", None)
    canonical = json.dumps(document, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def prefix(uid: str) -> str:
    """Return below which key everything lies that the imports of an Adapter left beside artifacts."""
    return f"imports/{uid}/"


def result_key(uid: str, source_hash_: str) -> str:
    return f"{prefix(uid)}{source_hash_}/{artifacts.RESULT_FILE}"


def parse_import(data: bytes | str) -> ImportSpec:
    """Read the import file; raise ``InvalidInput`` naming the field."""
    spec = _parse(ImportSpec, data, IMPORT_FILE)
    if spec.schema_version > SCHEMA_VERSION:
        raise InvalidInput(
            f"schemaVersion {spec.schema_version} is newer than {SCHEMA_VERSION};"
            " the trainer image is older than the operator",
            field=IMPORT_FILE,
            reason="InvalidJob",
        )
    return spec


def parse_result(data: bytes) -> ImportResult:
    return _parse(ImportResult, data, artifacts.RESULT_FILE)


def _parse(model: type[M], data: bytes | str, field: str) -> M:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{where}: {first['msg']}", field=field, reason="InvalidJob") from error
