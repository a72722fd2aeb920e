"""Container logs: writing, cutting, following."""

import asyncio
import datetime as dt
import pathlib

import pytest
from loraland_local.kubelet import logs
from loraland_local.kubelet.logs import LogStore, Query


async def read(store: LogStore, path: pathlib.Path, query: Query) -> bytes:
    return b"".join([piece async for piece in store.read(path, query)])


def write(store: LogStore, *chunks: bytes, attempt: int = 0) -> pathlib.Path:
    writer = store.open(store.pod_directory("n", "p", "uid"), "c", attempt)
    for chunk in chunks:
        writer.write("stdout", chunk)
    store.close(writer)
    return writer.path


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param(Query(), b"one\ntwo\nthree", id="all"),
        pytest.param(Query(tail_lines=2), b"two\nthree", id="tail"),
        pytest.param(Query(tail_lines=0), b"", id="no-tail"),
        pytest.param(Query(limit_bytes=5), b"one\nt", id="limit"),
        pytest.param(Query(follow=True), b"one\ntwo\nthree", id="follow-ends-with-the-attempt"),
        pytest.param(Query(since=dt.datetime(2999, 1, 1, tzinfo=dt.UTC)), b"", id="since"),
    ],
)
async def test_log_is_cut_as_asked(tmp_path: pathlib.Path, query: Query, expected: bytes) -> None:
    """Pieces of output become lines again, and a query selects from them."""
    store = LogStore(tmp_path)
    path = write(store, b"on", b"e\ntwo\nth", b"ree")

    assert await read(store, path, query) == expected


async def test_following_sees_what_comes(tmp_path: pathlib.Path) -> None:
    """A reader that follows gets lines written later, until the attempt ends."""
    store = LogStore(tmp_path)
    writer = store.open(store.pod_directory("n", "p", "uid"), "c", 0)
    writer.write("stdout", b"before\n")
    reading = asyncio.create_task(read(store, writer.path, Query(follow=True)))
    await asyncio.sleep(0.02)
    writer.write("stderr", b"after\n")
    store.close(writer)

    assert await reading == b"before\nafter\n"


async def test_long_line_is_one_line_again(tmp_path: pathlib.Path) -> None:
    """A line beyond the limit is written in pieces and read as one."""
    store = LogStore(tmp_path)
    line = b"x" * 50_000 + b"\n"
    path = write(store, line)

    assert len(path.read_bytes().splitlines()) == 4
    assert await read(store, path, Query()) == line


def test_attempts_are_told_apart(tmp_path: pathlib.Path) -> None:
    """The newest attempt is found, and the one before it as ``previous``."""
    store = LogStore(tmp_path)
    paths = [write(store, b"x\n", attempt=number) for number in (0, 2, 10)]

    found = [store.find("n", "p", "c", previous=previous) for previous in (False, True)]
    assert found == [paths[2], paths[1]]


def test_missing_log_is_named(tmp_path: pathlib.Path) -> None:
    """A pod without logs, or a container without an attempt before, is named."""
    store = LogStore(tmp_path)
    write(store, b"x\n")

    with pytest.raises(FileNotFoundError, match="previous terminated container 'c' in pod 'p'"):
        store.find("n", "p", "c", previous=True)
    with pytest.raises(FileNotFoundError, match="pod n/other has no logs"):
        store.find("n", "other", "c", previous=False)


@pytest.mark.parametrize(
    "named",
    [("n", "*", "c"), ("n", "p", "../n_p_uid/c"), ("..", "p", "c"), ("n", "p", "")],
    ids=["pattern", "path", "parent", "empty"],
)
def test_only_names_find_logs(tmp_path: pathlib.Path, named: tuple[str, str, str]) -> None:
    """What comes from a URL is a name, and neither a pattern nor a path."""
    store = LogStore(tmp_path)
    write(store, b"x\n")

    with pytest.raises(FileNotFoundError):
        store.find(*named, previous=False)


def test_tail_text_is_the_end_of_the_log(tmp_path: pathlib.Path) -> None:
    """A termination message from the log has its last lines, and no more bytes than allowed."""
    path = write(LogStore(tmp_path), b"".join(b"line %d\n" % number for number in range(100)))

    assert logs.tail_text(path, 2, 1000) == "line 98\nline 99\n"
    assert logs.tail_text(path, 2, 8) == "line 99\n"


def test_oldest_logs_are_forgotten(tmp_path: pathlib.Path) -> None:
    """Only the newest pods keep their logs."""
    store = LogStore(tmp_path)
    for number in range(3):
        store.close(store.open(store.pod_directory("n", f"p{number}", "uid"), "c", 0))
    store.prune(1)

    assert len(list(tmp_path.iterdir())) == 1
