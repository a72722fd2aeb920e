"""Which weights exactly: content hashes of files and folders. Reads files, writes only its own notes.

A hub has commits; a folder, an S3 prefix and a GGUF file have nothing of the sort, so their revision
is ``sha256:`` over what they hold. Hashing 15 GB takes a minute, so a file's hash is noted under the
cache directory and believed as long as its path, size and modification time stay the same.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

CHUNK_BYTES = 4 * 1024 * 1024
# Files larger than this are worth a line before they are read.
ANNOUNCED_BYTES = 1024**3


def hash_file(path: Path) -> str:
    """Return the sha256 of the file's content, read in chunks."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            sha256.update(chunk)
    return sha256.hexdigest()


def noted_hash(path: Path, notes: Path, report: Callable[[str], None]) -> str:
    """Return the file's sha256, from a note in the folder ``notes`` where it is still true."""
    facts = path.stat()
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    note = notes / f"{key}.json"
    expected = {"path": str(path.resolve()), "size": facts.st_size, "mtimeNs": facts.st_mtime_ns}
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(note.read_text())
        if {name: found.get(name) for name in expected} == expected:
            return str(found["sha256"])
    if facts.st_size > ANNOUNCED_BYTES:
        report(f"hashing {path.name} ({facts.st_size / 1024**3:.1f} GiB), once")
    sha256 = hash_file(path)
    # A note is an economy: a read-only or full disk costs time, never correctness.
    with contextlib.suppress(OSError):
        write_whole(note, json.dumps(expected | {"sha256": sha256}).encode())
    return sha256


def of_files(files: Iterable[tuple[str, int, str]]) -> str:
    """Return the revision of a set of files, given as (path, size in bytes, sha256)."""
    listing = sorted([path, size_bytes, sha256] for path, size_bytes, sha256 in files)
    canonical = json.dumps(listing, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that readers see whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
