"""The informer's copy of a kind, against a scripted cluster."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

from fake_cluster import FakeCluster
from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.informer import Informer

Object = dict[str, Any]


def pod(name: str, version: int, uid: str = "") -> Object:
    meta = {"namespace": "n", "name": name, "uid": uid or name, "resourceVersion": str(version)}
    return {"metadata": meta}


@contextlib.asynccontextmanager
async def following(cluster: FakeCluster) -> AsyncIterator[Informer]:
    informer = Informer(cast("Cluster", cluster), resources.PODS)
    task = asyncio.create_task(informer.run())
    await informer.wait_synced()
    yield informer
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def settle() -> None:
    await asyncio.sleep(0.02)


def versions(informer: Informer) -> dict[str, int]:
    return {objects.name(found): objects.resource_version(found) for found in informer.all()}


async def test_copy_follows_the_watch() -> None:
    """What is listed, added, changed and removed is in the copy, and told to listeners."""
    cluster = FakeCluster(([pod("a", 1), pod("b", 2)], "5"))
    told: list[str] = []
    async with following(cluster) as informer:
        informer.add_listener(lambda found: told.append(objects.name(found)))
        for event in (("ADDED", pod("c", 6)), ("MODIFIED", pod("a", 7)), ("DELETED", pod("b", 8))):
            cluster.events.put_nowait(event)
        await settle()

        assert versions(informer) == {"a": 7, "c": 6}
    assert told == ["a", "b", "c", "a", "b"]


async def test_ended_watch_goes_on_where_it_stopped() -> None:
    """A watch that the server ends is resumed at the last version, a bookmark's included."""
    cluster = FakeCluster(([], "5"))
    async with following(cluster):
        cluster.events.put_nowait(("BOOKMARK", pod("", 9)))
        cluster.events.put_nowait(None)
        await settle()

    assert cluster.watched_from == ["5", "9"]


async def test_expired_watch_starts_over_with_a_list() -> None:
    """After 410 Gone, what the new list lacks is removed."""
    cluster = FakeCluster(([pod("a", 1), pod("b", 2)], "5"), ([pod("b", 2)], "9"))
    async with following(cluster) as informer:
        cluster.events.put_nowait(ApiError(410, "Expired", "too old"))
        await settle()

        assert versions(informer) == {"b": 2}
    assert cluster.watched_from == ["5", "9"]


async def test_own_write_is_remembered_and_not_undone() -> None:
    """A remembered write is there at once, and an older event does not take it back."""
    cluster = FakeCluster(([pod("a", 1)], "5"))
    async with following(cluster) as informer:
        informer.remember(pod("a", 9))
        cluster.events.put_nowait(("MODIFIED", pod("a", 7)))
        await settle()

        assert versions(informer) == {"a": 9}


async def test_own_write_survives_an_older_list() -> None:
    """A list that was read before a creation does not remove what was created."""
    cluster = FakeCluster(([], "5"), ([], "6"))
    async with following(cluster) as informer:
        informer.remember(pod("new", 8))
        cluster.events.put_nowait(ApiError(410, "Expired", "too old"))
        await settle()

        assert versions(informer) == {"new": 8}


async def test_late_answer_does_not_bring_back_the_dead() -> None:
    """An answer that arrives after the object's removal is ignored."""
    cluster = FakeCluster(([pod("a", 1)], "5"))
    async with following(cluster) as informer:
        cluster.events.put_nowait(("DELETED", pod("a", 8)))
        await settle()
        informer.remember(pod("a", 7))

        assert versions(informer) == {}


async def test_object_made_again_is_told_as_two() -> None:
    """When an object was replaced by a namesake unseen, listeners hear of both."""
    cluster = FakeCluster(([pod("a", 1, "old")], "5"), ([pod("a", 8, "new")], "9"))
    told: list[str] = []
    async with following(cluster) as informer:
        informer.add_listener(lambda found: told.append(objects.uid(found)))
        cluster.events.put_nowait(ApiError(410, "Expired", "too old"))
        await settle()

    assert told == ["old", "old", "new"]
