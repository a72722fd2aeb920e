"""The files that a name with wildcards means: in a bucket, in a volume. One is open at a time.

An object is brought to this machine's disk before it is read (in ranges, each asked for again where
it breaks off), and removed after: the disk must hold the largest, memory none of them.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from loraland_core.errors import InvalidInput, NotFound
from loraland_core.store import Store, StoreConfig, parse_uri

from loraland_trainer import globs

MAX_FILE_BYTES = 256 * 1024**3
NUM_NAMES_SHOWN = 8


class Place(Protocol):
    """Where files lie."""

    def open_all(self, names: str) -> Iterator[tuple[str, BinaryIO]]:
        """Yield name and content of each file that ``names`` means, sorted by name."""
        ...


class Bucket:
    """Objects of S3, read with the credentials of the data set if it has its own."""

    def __init__(self, store: StoreConfig, credentials: dict[str, str]) -> None:
        self._store = store
        self._credentials = credentials

    def open_all(self, names: str) -> Iterator[tuple[str, BinaryIO]]:
        bucket, pattern = parse_uri(names)
        door = Store(
            self._store.model_copy(update={"bucket": bucket, "prefix": ""}),
            credentials=self._credentials or None,
        )
        try:
            for key, limit_bytes in self._find(door, pattern, names):
                with tempfile.NamedTemporaryFile(prefix="loraland-object-") as file:
                    self._download(door, key, Path(file.name), limit_bytes)
                    with Path(file.name).open("rb") as content:
                        yield door.uri(key), content
        finally:
            door.close()

    def _find(self, door: Store, pattern: str, names: str) -> list[tuple[str, int]]:
        """Return keys and sizes; a name without wildcards is not looked up in a listing."""
        if not globs.has_magic(pattern):
            return [(pattern, MAX_FILE_BYTES)]
        folder = globs.fixed_part(pattern)
        matches = globs.compile_glob(pattern).fullmatch
        seen: list[str] = []
        found: list[tuple[str, int]] = []
        for item in door.find_objects(folder):
            if matches(item.key):
                found.append((item.key, item.size_bytes))
            elif len(seen) < NUM_NAMES_SHOWN:
                seen.append(item.key.removeprefix(folder))
        if not found:
            raise _no_file(names, f"s3://{door.config.bucket}/{folder}", seen, field=names)
        return sorted(found)

    def _download(self, door: Store, key: str, path: Path, limit_bytes: int) -> None:
        try:
            # One byte at least: a limit of none would refuse an empty object's first answer.
            door.download(key, path, max_bytes=max(1, limit_bytes))
        except NotFound as error:
            raise InvalidInput(
                "there is no such object; check the key",
                field=door.uri(key),
                reason="DatasetNotFound",
            ) from error


class Volume:
    """Files of a mounted volume; nothing outside of it is ever opened."""

    def __init__(self, mount: Path, claim: str) -> None:
        self._mount = mount.resolve()
        self._claim = claim

    def open_all(self, names: str) -> Iterator[tuple[str, BinaryIO]]:
        for path in self._find(names):
            with path.open("rb") as content:
                yield str(path.relative_to(self._mount)), content

    def _find(self, names: str) -> list[Path]:
        pattern = names.strip("/")
        if not globs.has_magic(pattern):
            return [self._check(self._mount / pattern, names)]
        matches = globs.compile_glob(pattern).fullmatch
        folder = self._check(self._mount / globs.fixed_part(pattern), names, is_folder=True)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        found = [path for path in files if matches(str(path.relative_to(self._mount)))]
        if not found:
            seen = [str(path.relative_to(folder)) for path in files[:NUM_NAMES_SHOWN]]
            field = f"spec.dataset.pvc.path {names!r}"
            raise _no_file(names, f"the volume of claim {self._claim}", seen, field=field)
        return [self._check(path, names) for path in found]

    def _check(self, path: Path, names: str, *, is_folder: bool = False) -> Path:
        """Return the path without links; refuse one that leads out or is not there."""
        field = f"spec.dataset.pvc.path {names!r}"
        resolved = path.resolve()
        if not resolved.is_relative_to(self._mount):
            raise InvalidInput("leads out of the volume", field=field)
        if not (resolved.is_dir() if is_folder else resolved.is_file()):
            present = sorted(p.name for p in self._mount.iterdir()) if self._mount.is_dir() else []
            raise InvalidInput(
                f"the volume has no {'folder' if is_folder else 'file'} of that name; at its top:"
                f" {', '.join(present[:NUM_NAMES_SHOWN]) or 'nothing'}",
                field=field,
                reason="DatasetNotFound",
            )
        return resolved


def _no_file(names: str, where: str, seen: list[str], *, field: str) -> InvalidInput:
    return InvalidInput(
        f"no name in {where} matches; there are: {', '.join(seen) or 'none'}",
        field=field,
        reason="DatasetNotFound",
    )
