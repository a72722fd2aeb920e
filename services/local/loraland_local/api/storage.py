"""Objects, their versions and their history; the only module that touches the disk.

Everything lives in memory and is written through to SQLite in the same call, so a reader never
waits and a restart loses nothing but the event log (watchers are then told to list again).
Stored objects are shared: nobody may change one in place.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import errors

Json = dict[str, Any]
Key = tuple[str, str]  # group and plural
Name = tuple[str, str]  # namespace (empty for cluster scope) and name

LOG_EVENTS = 4096


@dataclasses.dataclass(frozen=True)
class Event:
    """One write: ``old`` is the object before it, None for a creation."""

    type: str
    version: int
    obj: Json
    old: Json | None


class Shelf:
    """The objects of one resource, its recent events and who waits for the next ones."""

    def __init__(self, floor: int) -> None:
        self.objects: dict[Name, Json] = {}
        self.encoded: dict[Name, bytes] = {}
        self.log: collections.deque[Event] = collections.deque(maxlen=LOG_EVENTS)
        self.watchers: set[asyncio.Queue[Event | None]] = set()
        self.floor = floor

    def publish(self, event: Event) -> None:
        if len(self.log) == LOG_EVENTS:
            self.floor = self.log[0].version
        self.log.append(event)
        for queue in list(self.watchers):
            if queue.qsize() < LOG_EVENTS:
                queue.put_nowait(event)
            else:
                # Too slow: it is told to come back, and resumes from the last version it saw.
                self.watchers.discard(queue)
                queue.put_nowait(None)


def encode(obj: Any) -> bytes:
    return json.dumps(obj, separators=(",", ":"), ensure_ascii=False).encode()


class Store:
    """Versioned objects with a write-through SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch(mode=0o600)  # secrets are in it
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS objects (grp TEXT, plural TEXT, ns TEXT, name TEXT,"
            " version INTEGER, body BLOB, PRIMARY KEY (grp, plural, ns, name)) WITHOUT ROWID"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS counter (version INTEGER)")
        row = self._db.execute("SELECT version FROM counter").fetchone()
        if row is None:
            self._db.execute("INSERT INTO counter VALUES (1)")
        self.version: int = row[0] if row else 1
        self._shelves: dict[Key, Shelf] = {}
        for group, plural, namespace, name, body in self._db.execute(
            "SELECT grp, plural, ns, name, body FROM objects"
        ):
            shelf = self.shelf((group, plural))
            shelf.objects[namespace, name] = json.loads(body)

    def close(self) -> None:
        self._db.close()

    def shelf(self, key: Key) -> Shelf:
        shelf = self._shelves.get(key)
        if shelf is None:
            shelf = self._shelves[key] = Shelf(self.version)
        return shelf

    def restart_history(self, key: Key) -> None:
        """Forget a resource's events: versions from before now are too old from now on."""
        shelf = self.shelf(key)
        shelf.floor = self.version
        shelf.log.clear()

    def get(self, key: Key, name: Name) -> Json | None:
        return self.shelf(key).objects.get(name)

    def encoded(self, key: Key, name: Name) -> bytes:
        """Return the stored object as JSON; encoded once per version."""
        shelf = self.shelf(key)
        body = shelf.encoded.get(name)
        if body is None:
            body = shelf.encoded[name] = encode(shelf.objects[name])
        return body

    def names(self, key: Key, namespace: str = "") -> list[Name]:
        """List names in order; an empty namespace means all of them."""
        objects = self.shelf(key).objects
        if namespace:
            return sorted(name for name in objects if name[0] == namespace)
        return sorted(objects)

    def objects(self, key: Key, namespace: str = "") -> Iterator[Json]:
        objects = self.shelf(key).objects
        return (objects[name] for name in self.names(key, namespace))

    def _write(self, statement: str, values: tuple[Any, ...], version: int) -> None:
        """Run one statement and count the version up, both or neither."""
        try:
            self._db.execute("BEGIN")
            self._db.execute(statement, values)
            self._db.execute("UPDATE counter SET version = ?", (version,))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise errors.internal(
                f"nothing was stored, because {self._path} cannot be written: {error}; free some"
                " space or check the file's permissions"
            ) from error
        self.version = version

    def put(self, key: Key, name: Name, obj: Json) -> Json:
        """Write an object under a new version, which is set in it."""
        shelf = self.shelf(key)
        old = shelf.objects.get(name)
        version = self.version + 1
        meta = {**obj["metadata"], "resourceVersion": str(version)}
        # Kind and version come first, so that a list can leave them out without reading on.
        head = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": meta}
        obj = head | {name: part for name, part in obj.items() if name not in head}
        body = encode(obj)
        row = (*key, *name, version, body)
        self._write("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", row, version)
        shelf.objects[name] = obj
        shelf.encoded[name] = body
        shelf.publish(Event("MODIFIED" if old else "ADDED", version, obj, old))
        return obj

    def remove(self, key: Key, name: Name, last: Json | None = None) -> Json:
        """Delete an object; ``last`` is how it looked at the end, if it changed on the way."""
        shelf = self.shelf(key)
        version = self.version + 1
        old = shelf.objects[name]
        obj = last or old
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(version)}}
        statement = "DELETE FROM objects WHERE grp=? AND plural=? AND ns=? AND name=?"
        self._write(statement, (*key, *name), version)
        del shelf.objects[name]
        shelf.encoded.pop(name, None)
        shelf.publish(Event("DELETED", version, obj, old))
        return obj
