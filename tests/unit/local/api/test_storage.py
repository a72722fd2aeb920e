"""The store: versions, history, persistence."""

from pathlib import Path
from typing import Any

import pytest
from loraland_local.api import storage
from loraland_local.api.errors import ApiError
from loraland_local.api.storage import Store

KEY = ("", "configmaps")


def _obj(name: str, value: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "n"},
        "data": {"v": value},
    }


def _put(store: Store, name: str, value: str = "") -> dict[str, Any]:
    return store.put(KEY, ("n", name), _obj(name, value))


def test_every_write_has_a_version_of_its_own(tmp_path: Path) -> None:
    """Versions only grow, across all kinds."""
    store = Store(tmp_path / "db")

    versions = [int(_put(store, name)["metadata"]["resourceVersion"]) for name in "aba"]

    assert versions == sorted(set(versions))
    assert store.version == versions[-1]


def test_objects_and_version_survive_a_restart(tmp_path: Path) -> None:
    """What was written is there again, and new versions are newer."""
    store = Store(tmp_path / "db")
    _put(store, "a", "1")
    _put(store, "b")
    store.remove(KEY, ("n", "b"))
    last = store.version
    store.close()

    again = Store(tmp_path / "db")

    assert [obj["metadata"]["name"] for obj in again.objects(KEY)] == ["a"]
    assert (again.get(KEY, ("n", "a")) or {})["data"] == {"v": "1"}
    assert again.version == last


def test_events_say_what_happened(tmp_path: Path) -> None:
    """Each write is an event with the object before and after."""
    store = Store(tmp_path / "db")
    _put(store, "a", "1")
    _put(store, "a", "2")
    store.remove(KEY, ("n", "a"))

    events = [(event.type, event.old and event.old["data"]["v"]) for event in store.shelf(KEY).log]

    assert events == [("ADDED", None), ("MODIFIED", "1"), ("DELETED", "2")]


def test_forgotten_history_raises_the_floor(tmp_path: Path) -> None:
    """A full log forgets its oldest events, and knows up to which version."""
    store = Store(tmp_path / "db")
    for number in range(storage.LOG_EVENTS + 2):
        _put(store, "a", str(number))

    shelf = store.shelf(KEY)

    assert len(shelf.log) == storage.LOG_EVENTS
    assert shelf.floor == shelf.log[0].version - 1


def test_names_are_listed_in_order(tmp_path: Path) -> None:
    """Lists are sorted by namespace and name."""
    store = Store(tmp_path / "db")
    for name in ("c", "a", "b"):
        _put(store, name)
    store.put(KEY, ("m", "z"), _obj("z"))

    assert store.names(KEY) == [("m", "z"), ("n", "a"), ("n", "b"), ("n", "c")]
    assert store.names(KEY, "n") == [("n", "a"), ("n", "b"), ("n", "c")]


def test_failed_write_changes_nothing_and_says_why(tmp_path: Path) -> None:
    """A full disk is an error of that request; memory and file stay in step."""
    store = Store(tmp_path / "db")
    made = _put(store, "a", "1")
    store._db.execute("PRAGMA query_only = ON")

    with pytest.raises(ApiError, match="nothing was stored"):
        _put(store, "a", "2")
    with pytest.raises(ApiError, match="cannot be written"):
        store.remove(KEY, ("n", "a"))
    store._db.execute("PRAGMA query_only = OFF")

    assert store.get(KEY, ("n", "a")) == made
    assert int(_put(store, "b")["metadata"]["resourceVersion"]) == store.version
