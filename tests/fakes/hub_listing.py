"""What a repository of the test Hub holds, as the Hub lists it. Pure."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Files = Mapping[str, bytes]


def commit_of(files: Files) -> str:
    """Return what the server calls the commit of these files."""
    sha1 = hashlib.sha1(usedforsecurity=False)
    for path, content in sorted(files.items()):
        sha1.update(f"{path}\0{len(content)}\0".encode() + content)
    return sha1.hexdigest()


def oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": oid(content)}


def folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": oid(path.encode())}


def folders(files: Files) -> set[str]:
    return {str(parent) for path in files for parent in Path(path).parents} - {"."}


def look_up(files: Files, path: str) -> list[dict[str, Any]]:
    if path in files:
        return [entry(path, files[path])]
    return [folder(path)] if path in folders(files) else []


def tree(files: Files, below: str, url: str) -> list[dict[str, Any]]:
    """Return the listing of a folder; the whole of it where the request is recursive."""
    recursive = parse_qs(urlsplit(url).query).get("recursive", ["false"])[0].lower() in (
        "true",
        "1",
    )
    entries = [folder(path) for path in sorted(folders(files))]
    entries += [entry(path, content) for path, content in sorted(files.items())]
    root = Path(below)
    return [
        entry
        for entry in entries
        if Path(entry["path"]).parent == root or (recursive and root in Path(entry["path"]).parents)
    ]
