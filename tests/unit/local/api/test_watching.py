"""Watches."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from loraland_local.api import kinds, storage
from loraland_local.api.storage import Store
from loraland_local.api.watching import Watch

KEY = kinds.CONFIG_MAPS.storage_key
Json = dict[str, Any]


def _put(store: Store, name: str, **labels: str) -> Json:
    meta = {"name": name, "namespace": "n", "labels": labels}
    obj = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": meta}
    return store.put(KEY, ("n", name), obj)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "db")


def _lines(store: Store, query: Mapping[str, str]) -> AsyncIterator[bytes]:
    return Watch(store, kinds.CONFIG_MAPS, "n", query, lambda obj: obj).lines()


async def _take(lines: AsyncIterator[bytes], count: int) -> list[tuple[str, str]]:
    found = []
    async with asyncio.timeout(5):
        while len(found) < count:
            event = json.loads(await anext(lines))
            found.append((event["type"], event["object"]["metadata"].get("name", "")))
    return found


async def test_watch_without_a_version_starts_with_what_is_there(store: Store) -> None:
    """Then the changes follow."""
    _put(store, "a")
    lines = _lines(store, {})

    first = await _take(lines, 1)
    _put(store, "b")
    store.remove(KEY, ("n", "a"))

    assert first + await _take(lines, 2) == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


async def test_watch_from_a_version_misses_nothing_since(store: Store) -> None:
    """What happened between the list and the watch is replayed."""
    version = _put(store, "a")["metadata"]["resourceVersion"]
    _put(store, "b")
    _put(store, "a", x="1")

    found = await _take(_lines(store, {"resourceVersion": version}), 2)

    assert found == [("ADDED", "b"), ("MODIFIED", "a")]


async def test_event_while_the_first_lines_go_out_comes_once(store: Store) -> None:
    """A write during the initial list is neither lost nor doubled."""
    _put(store, "a")
    _put(store, "b")
    lines = _lines(store, {})

    first = await _take(lines, 1)
    _put(store, "c")

    assert first + await _take(lines, 2) == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c")]


async def test_object_enters_and_leaves_a_selection(store: Store) -> None:
    """To a selective watch a changed label is an arrival or a departure."""
    _put(store, "a", team="x")
    lines = _lines(store, {"labelSelector": "team=x"})

    first = await _take(lines, 1)
    _put(store, "a", team="y")
    _put(store, "b", team="z")
    _put(store, "a", team="x")

    assert first + await _take(lines, 2) == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")]


async def test_streaming_list_ends_with_a_bookmark(store: Store) -> None:
    """The bookmark says that everything there was has been sent."""
    _put(store, "a")
    query = {"sendInitialEvents": "true", "allowWatchBookmarks": "true"}
    lines = _lines(store, query)

    await _take(lines, 1)
    bookmark = json.loads(await anext(lines))

    assert bookmark["type"] == "BOOKMARK"
    annotations = bookmark["object"]["metadata"]["annotations"]
    assert annotations == {"k8s.io/initial-events-end": "true"}


async def test_too_old_version_is_told_to_list_again(store: Store) -> None:
    """After a restart nobody knows what happened before."""
    _put(store, "a")
    store.restart_history(KEY)

    [line] = [line async for line in _lines(store, {"resourceVersion": "1"})]

    event = json.loads(line)
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


async def test_closed_watch_is_forgotten(store: Store) -> None:
    """A client that goes away leaves nothing behind."""
    _put(store, "a")
    lines = _lines(store, {})
    await _take(lines, 1)

    await lines.aclose()  # type: ignore[attr-defined]

    assert store.shelf(KEY).watchers == set()


async def test_watch_that_falls_behind_is_ended(store: Store) -> None:
    """A client that does not read costs no memory without end; it may resume."""
    _put(store, "a")
    lines = _lines(store, {})
    await _take(lines, 1)

    for number in range(storage.LOG_EVENTS + 2):
        _put(store, "a", x=str(number))

    assert len([line async for line in lines]) == storage.LOG_EVENTS
