"""What a watch stream lost is found by listing."""

from typing import Any

from loraland_operator import cluster as kubernetes
from loraland_operator.mirror import Key, Mirror
from loraland_operator.resync import CHILD_SELECTOR, STALLED_LOOKS, Resync, concerns
from operator_objects import build_adapter_object, build_child, build_job_object, build_pod


class FakeCluster:
    """Lists what it is given."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = objects

    async def list(self, resource: kubernetes.Resource, *_: Any, **__: Any) -> list[dict[str, Any]]:
        return [o for o in self.objects if o["kind"] == resource.kind]


async def look(
    mirror: Mirror, resource: kubernetes.Resource, *objects: dict[str, Any]
) -> tuple[int, list[Key]]:
    woken: list[Key] = []
    resync = Resync(
        cluster=FakeCluster(*objects),  # type: ignore[arg-type]
        mirror=mirror,
        namespaces=(),
        wake=woken.append,
        grace_s=0,
    )
    return await resync.look(resource, CHILD_SELECTOR), woken


async def test_missed_object_is_taken_over() -> None:
    """An Adapter whose event was lost gets its plan after all."""
    mirror = Mirror()

    found = await look(mirror, kubernetes.ADAPTERS, build_adapter_object())

    assert found == (1, [Key("Adapter", "default", "tickets")])
    assert mirror.find("Adapter", "default", "tickets") is not None


async def test_missed_deletion_of_a_child_wakes_its_job() -> None:
    """A Job that went unseen does not keep its FineTuneJob running for ever."""
    mirror = Mirror()
    mirror.put(build_child())

    found = await look(mirror, kubernetes.JOBS)

    assert found == (1, [Key("FineTuneJob", "default", "tickets")])
    assert mirror.find("Job", "default", "tickets") is None


async def test_nothing_missed_wakes_nobody() -> None:
    """What the streams showed already is no news."""
    mirror = Mirror()
    mirror.put(build_job_object())

    assert await look(mirror, kubernetes.FINE_TUNE_JOBS, build_job_object()) == (0, [])


async def test_streams_that_bring_nothing_are_told_as_stalled() -> None:
    """The liveness probe fails only when look after look finds what no stream brought."""
    cluster = FakeCluster()
    resync = Resync(
        cluster=cluster,  # type: ignore[arg-type]
        mirror=Mirror(),
        namespaces=(),
        wake=lambda _: None,
        grace_s=0,
    )
    found = []
    for version in range(STALLED_LOOKS):
        adapter = build_adapter_object()
        adapter["metadata"]["resourceVersion"] = str(1000 + version)
        cluster.objects = (adapter,)
        found.append(resync.stalled)
        await resync.look(kubernetes.ADAPTERS, "")
    found.append(resync.stalled)
    await resync.look(kubernetes.ADAPTERS, "")

    assert [*found, resync.stalled] == [""] * STALLED_LOOKS + ["adapters", ""]


def test_children_concern_their_job() -> None:
    """A pod's event is its FineTuneJob's."""
    assert concerns(build_pod()) == Key("FineTuneJob", "default", "tickets")
