"""Container logs: one file for each attempt, each line with its time, as container runtimes write.

A line is ``<RFC 3339 time> <stdout|stderr> <P|F> <text>``; ``P`` marks a piece of a line that was
too long or is not finished. The only reader and writer of these files.
"""

import asyncio
import dataclasses
import datetime as dt
import glob
import pathlib
from collections.abc import AsyncIterator, Iterator
from typing import IO

from loraland_local.apiclient import objects

_MAX_LINE_BYTES = 16 * 1024
_MAX_FILE_BYTES = 64 * 1024 * 1024
_FOLLOW_INTERVAL_S = 0.1
_BLOCK_BYTES = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Query:
    """What a reader wants of a log."""

    follow: bool = False
    tail_lines: int | None = None
    since: dt.datetime | None = None
    timestamps: bool = False
    limit_bytes: int | None = None


class LogWriter:
    """Writes one attempt's log."""

    def __init__(self, path: pathlib.Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: IO[bytes] = path.open("ab", buffering=0)
        self._partial: dict[str, bytes] = {}
        self._size_bytes = path.stat().st_size

    def write(self, stream: str, chunk: bytes) -> None:
        """Take a piece of output; whole lines are written at once."""
        *lines, rest = (self._partial.pop(stream, b"") + chunk).split(b"\n")
        now = objects.format_micro_time(dt.datetime.now(tz=dt.UTC))
        for line in lines:
            self._write_line(now, stream, line, "F")
        while len(rest) > _MAX_LINE_BYTES:
            self._write_piece(now, stream, "P", rest[:_MAX_LINE_BYTES])
            rest = rest[_MAX_LINE_BYTES:]
        if rest:
            self._partial[stream] = rest

    def close(self) -> None:
        now = objects.format_micro_time(dt.datetime.now(tz=dt.UTC))
        for stream, rest in self._partial.items():
            self._write_line(now, stream, rest, "P")
        self._partial.clear()
        self._file.close()

    def _write_line(self, now: str, stream: str, line: bytes, last_tag: str) -> None:
        while len(line) > _MAX_LINE_BYTES:
            self._write_piece(now, stream, "P", line[:_MAX_LINE_BYTES])
            line = line[_MAX_LINE_BYTES:]
        self._write_piece(now, stream, last_tag, line)

    def _write_piece(self, now: str, stream: str, tag: str, text: bytes) -> None:
        if self._size_bytes > _MAX_FILE_BYTES:
            self._start_over()
        piece = f"{now} {stream} {tag} ".encode() + text + b"\n"
        try:
            self._file.write(piece)
        except OSError:
            # A full disk must not take the container down with it.
            return
        self._size_bytes += len(piece)

    def _start_over(self) -> None:
        """Keep one older file, so that a chatty program cannot fill the disk."""
        self._file.close()
        self.path.replace(self.path.with_suffix(".older"))
        self._file = self.path.open("ab", buffering=0)
        self._size_bytes = 0


class LogStore:
    """Where the logs of all containers are."""

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._open: set[pathlib.Path] = set()

    def pod_directory(self, namespace: str, pod: str, uid: str) -> pathlib.Path:
        return self._root / f"{namespace}_{pod}_{uid}"

    def open(self, directory: pathlib.Path, container: str, attempt: int) -> LogWriter:
        writer = LogWriter(directory / container / f"{attempt}.log")
        self._open.add(writer.path)
        return writer

    def close(self, writer: LogWriter) -> None:
        writer.close()
        self._open.discard(writer.path)

    def find(self, namespace: str, pod: str, container: str, *, previous: bool) -> pathlib.Path:
        """Return the file of the newest attempt, or the one before; ``FileNotFoundError``."""
        if any("/" in part or part in {"", ".", ".."} for part in (namespace, pod, container)):
            raise FileNotFoundError(f"{namespace}/{pod}/{container} names no container")
        directories = sorted(
            self._root.glob(glob.escape(f"{namespace}_{pod}_") + "*"),
            key=lambda found: found.stat().st_mtime,
        )
        if not directories:
            raise FileNotFoundError(f"pod {namespace}/{pod} has no logs on this node")
        attempts = sorted(
            (directories[-1] / container).glob("*.log"), key=lambda found: int(found.stem)
        )
        wanted = 2 if previous else 1
        if len(attempts) < wanted:
            what = "previous terminated container" if previous else "container"
            raise FileNotFoundError(f"{what} {container!r} in pod {pod!r} not found")
        return attempts[-wanted]

    async def read(self, path: pathlib.Path, query: Query) -> AsyncIterator[bytes]:
        """Yield the text that was asked for; following ends with the attempt."""
        left = query.limit_bytes
        async for line in self._select(path, query):
            text = _render(line, timestamps=query.timestamps)
            if left is not None:
                text = text[:left]
                left -= len(text)
            if text:
                yield text
            if left == 0:
                return

    async def _select(self, path: pathlib.Path, query: Query) -> AsyncIterator[bytes]:
        with path.open("rb") as file:
            lines = [line for line in _whole_lines(file) if _is_since(line, query.since)]
            if query.tail_lines is not None:
                lines = lines[max(len(lines) - query.tail_lines, 0) :]
            for line in lines:
                yield line
            while query.follow:
                is_open = path in self._open
                for line in _whole_lines(file):
                    yield line
                if not is_open:
                    return
                await asyncio.sleep(_FOLLOW_INTERVAL_S)

    def prune(self, keep: int) -> None:
        """Forget the logs of the oldest pods."""
        directories = sorted(self._root.glob("*_*_*"), key=lambda found: found.stat().st_mtime)
        for directory in directories[: max(len(directories) - keep, 0)]:
            for file in sorted(directory.rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
            directory.rmdir()


def tail_text(path: pathlib.Path, max_lines: int, max_bytes: int) -> str:
    """Return the end of a log as plain text, for a termination message."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - max_lines * _BLOCK_BYTES // 16, 0))
            lines = [_render(line, timestamps=False) for line in _whole_lines(file)]
    except OSError:
        return ""
    return b"".join(lines[-max_lines:])[-max_bytes:].decode(errors="replace")


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield complete lines; a line that is being written stays for the next time."""
    while True:
        start = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(start)
            return
        yield line


def _is_since(line: bytes, since: dt.datetime | None) -> bool:
    if since is None:
        return True
    moment = objects.parse_time(line.partition(b" ")[0].decode())
    return moment is None or moment >= since


def _render(line: bytes, *, timestamps: bool) -> bytes:
    moment, _, rest = line.partition(b" ")
    _, _, rest = rest.partition(b" ")
    tag, _, text = rest.partition(b" ")
    if tag == b"P":
        text = text.removesuffix(b"\n")
    return moment + b" " + text if timestamps else text
