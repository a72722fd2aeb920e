"""The disk tier: artifacts from S3, in folders named by digest. The only reader of adapter files in S3.

A folder appears whole or not at all: files are written beside it under a temporary name, hashed
against the manifest while they stream, and renamed when all are right. What a restart finds is
hashed again before it is used.
"""

import asyncio
import errno
import hashlib
import logging
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from loraland_core import artifacts, prompts
from loraland_core.artifacts import Manifest
from loraland_core.errors import ArtifactInvalid, InvalidInput, NotFound, Unavailable
from loraland_core.keys import AdapterRecord
from loraland_core.names import Reason
from loraland_core.prompts import PromptTemplate
from loraland_core.store import Store

log = logging.getLogger("loraland.adapters")

CONCURRENT_FETCHES = 4
CONCURRENT_READS = 2
HASH_CHUNK_BYTES = 1024 * 1024
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class LocalAdapter:
    """An artifact on this machine, verified since this process started."""

    digest: str
    folder: Path
    prompt: PromptTemplate


class DiskTier:
    """Fetches what is asked for, each artifact once, however many ask at the same time."""

    def __init__(self, store: Store, root: Path) -> None:
        self._store = store
        self._root = root
        # Threads of its own for each kind of wait: a store that hangs must not keep an adapter that
        # is on the disk already from being read.
        self._downloads = ThreadPoolExecutor(CONCURRENT_FETCHES, thread_name_prefix="fetch")
        self._reads = ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="disk")
        self._verified: dict[str, LocalAdapter] = {}
        self._fetches: dict[str, asyncio.Task[LocalAdapter]] = {}

    def prepare(self) -> None:
        """Make the folder, and remove what a killed process left half written."""
        self._root.mkdir(parents=True, exist_ok=True)
        for left in self._root.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)

    def has(self, digest: str) -> bool:
        return digest in self._verified

    async def ensure(self, record: AdapterRecord) -> LocalAdapter:
        """Return the artifact's folder, fetching it if it is not here.

        Raises ``ArtifactInvalid`` for files that are not what they should be, ``Unavailable`` where
        the store does not answer or the disk is full.
        """
        local = self._verified.get(record.digest)
        if local is not None:
            return local
        task = self._fetches.get(record.digest)
        if task is None:
            task = asyncio.create_task(self._fetch(record))
            self._fetches[record.digest] = task
            task.add_done_callback(lambda t: self._forget(record.digest, t))
        # A caller that gives up does not take the fetch from the others.
        return await asyncio.shield(task)

    def _forget(self, digest: str, task: asyncio.Task[LocalAdapter]) -> None:
        self._fetches.pop(digest, None)
        # Looked at, so that the error of a fetch that nobody waits for is not reported as lost.
        if not task.cancelled():
            task.exception()

    async def close(self) -> None:
        for task in list(self._fetches.values()):
            task.cancel()
        await asyncio.gather(*self._fetches.values(), return_exceptions=True)
        for executor in (self._downloads, self._reads):
            executor.shutdown(wait=False, cancel_futures=True)

    async def _fetch(self, record: AdapterRecord) -> LocalAdapter:
        loop = asyncio.get_running_loop()
        try:
            local = await loop.run_in_executor(self._reads, self._read, record.digest)
            if local is None:
                await loop.run_in_executor(self._downloads, self._download, record)
                local = await loop.run_in_executor(self._reads, self._read, record.digest)
        except OSError as error:
            raise _disk_fault(error, self._root) from error
        except InvalidInput as error:
            raise _as_artifact_fault(error) from error
        if local is None:
            raise Unavailable(f"{record.digest[:12]} was damaged on disk right after its download")
        self._verified[record.digest] = local
        return local

    def _read(self, digest: str) -> LocalAdapter | None:
        """Return what lies on the disk if it is whole; remove what is not."""
        folder = self._root / digest
        if not folder.exists():
            return None
        if not self._is_whole(folder, digest):
            log.warning("%s on disk is damaged; fetching it again", digest[:12])
            shutil.rmtree(folder)
            return None
        prompt = prompts.parse_prompt((folder / prompts.PROMPT_FILE).read_bytes())
        return LocalAdapter(digest, folder, prompt)

    def _is_whole(self, folder: Path, digest: str) -> bool:
        try:
            data = (folder / artifacts.MANIFEST_FILE).read_bytes()
            manifest = artifacts.parse_manifest(data, expected_digest=digest)
            return all(_sha256(folder / f.path) == f.sha256 for f in manifest.served_files)
        except (OSError, ArtifactInvalid):
            return False

    def _download(self, record: AdapterRecord) -> None:
        with tempfile.TemporaryDirectory(
            prefix=_PARTIAL, dir=self._root, ignore_cleanup_errors=True
        ) as name:
            partial = Path(name) / record.digest
            partial.mkdir()
            manifest = self._download_manifest(record, partial)
            for file in manifest.served_files:
                self._download_file(record, file, partial)
            try:
                partial.rename(self._root / record.digest)
            except OSError as error:
                # Another process on this node was faster; its copy has the same content.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        log.info("fetched %s (%d bytes)", record.uri, manifest.size_bytes)

    def _download_manifest(self, record: AdapterRecord, partial: Path) -> Manifest:
        try:
            data = self._store.read(
                self._key(record, artifacts.MANIFEST_FILE), max_bytes=artifacts.MAX_MANIFEST_BYTES
            )
        except NotFound as error:
            raise ArtifactInvalid(
                f"{record.uri} has no manifest", reason=Reason.MANIFEST_MISSING
            ) from error
        manifest = artifacts.parse_manifest(data, expected_digest=record.digest)
        (partial / artifacts.MANIFEST_FILE).write_bytes(data)
        return manifest

    def _download_file(self, record: AdapterRecord, file: artifacts.File, partial: Path) -> None:
        path = partial / file.path
        try:
            sha256 = self._store.download(
                self._key(record, file.path), path, max_bytes=file.size_bytes
            )
        except NotFound as error:
            raise ArtifactInvalid("is missing", field=file.path) from error
        if sha256 != file.sha256:
            raise ArtifactInvalid(
                f"its sha256 is {sha256}, the manifest says {file.sha256}",
                field=file.path,
                reason=Reason.DIGEST_MISMATCH,
            )

    def _key(self, record: AdapterRecord, path: str) -> str:
        return self._store.key(f"{record.uri.rstrip('/')}/{path}")


def _as_artifact_fault(error: InvalidInput) -> ArtifactInvalid | Unavailable:
    """Tell an adapter's fault from the platform's: a wrong bucket is not the adapter's."""
    if isinstance(error, ArtifactInvalid):
        return error
    if error.reason.startswith(("Store", "Bucket")):
        return Unavailable(f"the artifact store refuses this server: {error}", retry_after_s=30.0)
    reason = error.reason if error.reason != "InvalidSpec" else Reason.ARTIFACT_INVALID.value
    return ArtifactInvalid(str(error), reason=reason)


def _disk_fault(error: OSError, root: Path) -> Unavailable:
    if error.errno == errno.ENOSPC:
        return Unavailable(f"no space is left in {root}; free some", retry_after_s=30.0)
    return Unavailable(f"the adapter folder {root} fails: {error.strerror}", retry_after_s=30.0)


def _sha256(path: Path) -> str:
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            sha256.update(chunk)
    return sha256.hexdigest()
