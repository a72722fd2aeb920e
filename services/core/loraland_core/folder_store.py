"""An artifact store in a folder of this machine, for runs without S3: the same keys as paths.

It stands in for ``Store`` wherever one is taken. Objects appear whole, as in S3. Uploads in parts
do not exist here.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from loraland_core.errors import InvalidInput, NotFound
from loraland_core.store import (
    CHUNK_BYTES,
    MAX_SMALL_OBJECT_BYTES,
    Store,
    StoreConfig,
    StoredObject,
    UnfinishedUpload,
)

# Beside the objects, and never one of them.
_UNFINISHED = ".unfinished-"


class FolderStore(Store):
    """One folder; raises as ``Store`` does, and ``OSError`` where the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self.config = StoreConfig(bucket="folder")
        self._folder = folder.resolve()

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def uri(self, key: str) -> str:
        return f"{self._folder.as_uri()}/{key}"

    def key(self, uri: str) -> str:
        base = f"{self._folder.as_uri()}/"
        if not uri.startswith(base):
            raise InvalidInput(f"{uri} is not below {base}", field="uri", reason="ArtifactInvalid")
        return uri[len(base) :]

    def read(self, key: str, *, max_bytes: int = MAX_SMALL_OBJECT_BYTES) -> bytes:
        with self._open(key) as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise InvalidInput(f"is larger than {max_bytes} bytes", field=self.uri(key))
        return data

    def write(self, key: str, data: bytes) -> None:
        with self._appearing(key) as file:
            file.write(data)

    def upload(self, path: Path, key: str) -> None:
        with self._appearing(key) as file, path.open("rb") as source:
            shutil.copyfileobj(source, file, CHUNK_BYTES)

    def download(self, key: str, path: Path, *, max_bytes: int) -> str:
        sha256 = hashlib.sha256()
        num_bytes = 0
        with self._open(key) as file, path.open("wb") as target:
            while chunk := file.read(CHUNK_BYTES):
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise InvalidInput(
                        f"is larger than the {max_bytes} bytes announced",
                        field=self.uri(key),
                        reason="DigestMismatch",
                    )
                sha256.update(chunk)
                target.write(chunk)
        return sha256.hexdigest()

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def find_objects(self, prefix: str) -> Iterator[StoredObject]:
        for path in sorted(self._folder.rglob("*")):
            key = path.relative_to(self._folder).as_posix()
            if key.startswith(prefix) and path.is_file() and not path.name.startswith(_UNFINISHED):
                found = path.stat()
                modified = datetime.fromtimestamp(found.st_mtime, UTC)
                yield StoredObject(key, found.st_size, f"{found.st_mtime_ns}", modified)

    def find_uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        return iter(())

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Do nothing: there is none."""

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def delete_prefix(self, prefix: str) -> int:
        assert len(prefix) > 1, prefix
        assert prefix.endswith("/"), prefix
        num_deleted = sum(1 for _ in self.find_objects(prefix))
        shutil.rmtree(self._path(prefix), ignore_errors=not num_deleted)
        return num_deleted

    def _path(self, key: str) -> Path:
        path = self._folder / key
        assert ".." not in path.parts, key
        return path

    @contextmanager
    def _open(self, key: str) -> Iterator[BinaryIO]:
        try:
            file = self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound(f"{self.uri(key)} does not exist") from error
        with file:
            yield file

    @contextmanager
    def _appearing(self, key: str) -> Iterator[BinaryIO]:
        """Yield a file that gets its name once it is whole."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
