"""The folders of the disk tier: reading, checking, locking and removing them. Blocking; no policy.

A folder is named by digest and appears whole or not at all. Who reads one holds a shared lock on it,
so that no neighbour on the node makes room with it meanwhile.
"""

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loraland_core import artifacts, prompts
from loraland_core.errors import ArtifactInvalid
from loraland_core.prompts import PromptTemplate

from loraland_inference.adapters import workspace
from loraland_inference.adapters.workspace import Workspace

log = logging.getLogger("loraland.adapters")

HASH_CHUNK_BYTES = 1024 * 1024
_DIGEST = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class LocalAdapter:
    """An artifact on this machine, verified since this process started."""

    digest: str
    folder: Path
    prompt: PromptTemplate
    size_bytes: int


@dataclass(frozen=True)
class FoundFolder:
    """A folder that nobody has verified yet."""

    size_bytes: int
    # Since it was last used by any process.
    age_s: float


class Folders:
    """All of them on one disk, which other processes may use as well."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._workspace = Workspace(root)

    def open(self) -> str:
        """Make the root, remove what dead processes left; return the disk's name.

        Raises ``OSError``.
        """
        self._workspace.open()
        return workspace.node_id(self._root)

    def close(self) -> None:
        self._workspace.close()

    def path(self, digest: str) -> Path:
        return self._root / digest

    def find(self, digest: str) -> LocalAdapter | None:
        """Return what lies on the disk if it is whole by its hashes; remove what is not."""
        if not self.path(digest).exists():
            return None
        if _is_whole(self.path(digest), digest):
            return self.read(digest)
        log.warning("%s on disk is damaged; fetching it again", digest[:12])
        self.remove(digest)
        return None

    def read(self, digest: str) -> LocalAdapter | None:
        """Return what lies on the disk, unchecked; None where a neighbour has removed it."""
        folder = self.path(digest)
        try:
            prompt = prompts.parse_prompt((folder / prompts.PROMPT_FILE).read_bytes())
            return LocalAdapter(digest, folder, prompt, _size_bytes(folder))
        except FileNotFoundError:
            return None

    def write(self, digest: str, fill: Callable[[Path], float]) -> float:
        """Let ``fill`` put files into a folder, which then becomes the artifact's; return its result."""
        partial = self._workspace.folder / f"fetch-{uuid.uuid4().hex}"
        partial.mkdir()
        try:
            result = fill(partial)
            try:
                partial.rename(self.path(digest))
            except OSError as error:
                # Another process on this node was faster; its copy has the same content.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return result

    def scan(self) -> dict[str, FoundFolder]:
        """Return what is there by digest."""
        found = {}
        now_s = time.time()
        for folder in self._root.iterdir():
            if _DIGEST.match(folder.name):
                try:
                    age_s = max(0.0, now_s - folder.stat().st_mtime)
                    found[folder.name] = FoundFolder(_size_bytes(folder), age_s)
                except FileNotFoundError:
                    continue
        return found

    def remove(self, digest: str) -> bool:
        """Remove a folder unless somebody reads it; False where it stays."""
        gone = self._workspace.folder / f"gone-{uuid.uuid4().hex}"
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.path(digest).rename(gone)
        except (BlockingIOError, FileNotFoundError):
            return False
        finally:
            os.close(fd)
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def lock(self, digest: str) -> int | None:
        """Return a lock to be closed by ``unlock``, and note the use; None where it is gone."""
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # For neighbours and for the next process.
            os.utime(fd)
            if workspace.is_same_file(fd, self.path(digest)):
                return fd
        except OSError as error:
            log.debug("%s cannot be locked: %s", digest[:12], error)
        os.close(fd)
        return None

    def unlock(self, lock: int) -> None:
        os.close(lock)


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        data = (folder / artifacts.MANIFEST_FILE).read_bytes()
        manifest = artifacts.parse_manifest(data, expected_digest=digest)
        return all(_sha256(folder / f.path) == f.sha256 for f in manifest.served_files)
    except (OSError, ArtifactInvalid):
        return False


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _sha256(path: Path) -> str:
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            sha256.update(chunk)
    return sha256.hexdigest()
