"""Watches over random histories: a client that keeps reconnecting ends up with the truth."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from loraland_local.api import kinds
from loraland_local.api.storage import Store
from loraland_local.api.watching import Watch

KEY = kinds.CONFIG_MAPS.storage_key
NAMES = "abcdefgh"
Json = dict[str, Any]


def _write(store: Store, chance: random.Random) -> None:
    """Create, change or delete one object; some belong to the watched team."""
    name = ("n", chance.choice(NAMES))
    if store.get(KEY, name) is not None and chance.random() < 0.3:
        store.remove(KEY, name)
        return
    labels = {"team": chance.choice("xy"), "mark": str(chance.random())}
    meta = {"name": name[1], "namespace": "n", "labels": labels}
    store.put(KEY, name, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": meta})


class Client:
    """Keeps a copy by watching; resumes from the last version that it was told."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.copy: dict[str, Json] = {}
        self.version = ""

    def _lines(self) -> AsyncIterator[bytes]:
        query = {"labelSelector": "team=x", "allowWatchBookmarks": "true"}
        if self.version:
            query["resourceVersion"] = self.version
        else:
            query["sendInitialEvents"] = "true"
        return Watch(self._store, kinds.CONFIG_MAPS, "n", query, lambda obj: obj).lines()

    async def read(self, limit: int) -> None:
        """Follow one connection for so many events, or until nothing comes."""
        lines = self._lines()
        if not self.version:
            self.copy = {}
        initial = not self.version
        for _ in range(limit):
            try:
                async with asyncio.timeout(0.02):
                    event = json.loads(await anext(lines))
            except TimeoutError:
                break
            meta = event["object"]["metadata"]
            # Until the first bookmark, versions come in the order of names and mean nothing.
            initial = initial and event["type"] != "BOOKMARK"
            self.version = "" if initial else meta["resourceVersion"]
            if event["type"] == "DELETED":
                del self.copy[meta["name"]]
            elif event["type"] != "BOOKMARK":
                assert (event["type"] == "MODIFIED") == (meta["name"] in self.copy)
                self.copy[meta["name"]] = event["object"]
        await lines.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(8))
async def test_reconnecting_client_ends_up_with_the_truth(tmp_path: Path, seed: int) -> None:
    """Nothing is lost, doubled or out of order, wherever a connection breaks."""
    chance = random.Random(seed)  # noqa: S311 - a history, not a secret
    store = Store(tmp_path / "db")
    for _ in range(10):
        _write(store, chance)
    client = Client(store)

    for _ in range(25):
        reading = asyncio.create_task(client.read(chance.randint(1, 6)))
        for _ in range(chance.randint(0, 8)):
            _write(store, chance)
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        await reading
    await client.read(10_000)

    expected = {
        obj["metadata"]["name"]: obj
        for obj in store.objects(KEY)
        if obj["metadata"]["labels"]["team"] == "x"
    }
    assert client.copy == expected
