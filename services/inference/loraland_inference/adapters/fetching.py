"""One artifact from S3 into a folder: the only reader of adapter files in S3. Blocking.

What comes is not trusted: the manifest must give the digest, each file its size and sha256, and the
header of the weights may claim no more than is there.
"""

import time
from pathlib import Path

from loraland_core import artifacts, safetensors_header
from loraland_core.artifacts import Manifest
from loraland_core.errors import ArtifactInvalid, InvalidInput, NotFound
from loraland_core.keys import AdapterRecord
from loraland_core.names import Reason
from loraland_core.store import Store

Content = tuple[Manifest, bytes]


class Fetcher:
    """Reads artifacts of at most ``max_bytes``."""

    def __init__(self, store: Store, *, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes

    def read_manifest(self, record: AdapterRecord) -> Content:
        """Return the artifact's manifest and its bytes; raise ``ArtifactInvalid`` for a wrong one."""
        try:
            data = self._store.read(
                self._key(record, artifacts.MANIFEST_FILE), max_bytes=artifacts.MAX_MANIFEST_BYTES
            )
        except NotFound as error:
            raise ArtifactInvalid(
                f"{record.uri} has no manifest", reason=Reason.MANIFEST_MISSING
            ) from error
        manifest = artifacts.parse_manifest(data, expected_digest=record.digest)
        if manifest.size_bytes > self._max_bytes:
            raise ArtifactInvalid(
                f"its files are {manifest.size_bytes} bytes; this replica takes"
                f" {self._max_bytes} at most",
                reason=Reason.ARTIFACT_TOO_LARGE,
            )
        return manifest, data

    def download(self, record: AdapterRecord, content: Content, folder: Path) -> float:
        """Fill the folder, which is there and empty; return the seconds that it took."""
        started_s = time.monotonic()
        manifest, data = content
        for file in manifest.served_files:
            self._download_file(record, file, folder)
        safetensors_header.read(folder / artifacts.WEIGHTS_FILE)
        (folder / artifacts.MANIFEST_FILE).write_bytes(data)
        return time.monotonic() - started_s

    def _download_file(self, record: AdapterRecord, file: artifacts.File, folder: Path) -> None:
        try:
            sha256 = self._store.download(
                self._key(record, file.path), folder / file.path, max_bytes=file.size_bytes
            )
        except NotFound as error:
            raise ArtifactInvalid("is missing", field=file.path) from error
        except InvalidInput as error:
            if error.reason != Reason.DIGEST_MISMATCH:
                raise
            raise ArtifactInvalid(
                str(error), field=file.path, reason=Reason.DIGEST_MISMATCH
            ) from error
        if sha256 != file.sha256:
            raise ArtifactInvalid(
                f"its sha256 is {sha256}, the manifest says {file.sha256}",
                field=file.path,
                reason=Reason.DIGEST_MISMATCH,
            )

    def _key(self, record: AdapterRecord, path: str) -> str:
        return self._store.key(f"{record.uri.rstrip('/')}/{path}")
