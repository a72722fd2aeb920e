"""The sweep over registry and replicas goes on, whatever one Adapter looks like."""

from collections.abc import Mapping
from typing import Any

from loraland_core.keys import AdapterRecord
from loraland_operator.fleets import Fleets
from loraland_operator.mirror import Key, Mirror
from loraland_operator.plan.fleet import Fleet
from loraland_operator.registry import Collect
from operator_objects import BASE, build_adapter_object, build_beat, build_record


class FakeCluster:
    """Lists what it is given."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = objects

    async def list(self, *_: Any) -> list[dict[str, Any]]:
        return list(self.objects)


class FakeRegistry:
    """Lost what it held; remembers what is published."""

    def __init__(self) -> None:
        self.published: tuple[Mapping[str, AdapterRecord], set[str]] = {}, set()
        self.fleet = Fleet()
        self.is_intact = False

    async def read_is_intact(self, _: str) -> bool:
        return self.is_intact

    async def publish(self, _: str, collect: Collect) -> None:
        self.published = await collect()
        self.is_intact = True

    async def read_fleet(self, _: str) -> Fleet:
        return self.fleet

    def find_record(self, *_: str) -> AdapterRecord:
        return build_record()


class FakeBaseModels:
    names = (BASE,)


async def test_adapter_of_another_release_stops_no_other() -> None:
    """One that cannot be read is known, not wanted and left alone; its neighbour is woken."""
    alien = build_adapter_object("alien", priority="urgent")
    alien["status"] = {"registeredRevision": "100"}
    good = build_adapter_object("good")
    good["status"] = {"registeredRevision": "100"}
    mirror, woken, registry = Mirror(), list[Key](), FakeRegistry()
    for obj in (alien, good):
        mirror.put(obj)
    fleets = Fleets(
        registry=registry,  # type: ignore[arg-type]
        cluster=FakeCluster(alien, good),  # type: ignore[arg-type]
        mirror=mirror,
        base_models=FakeBaseModels(),  # type: ignore[arg-type]
        namespaces=(),
        wake=woken.append,
    )

    await fleets.sweep(BASE)
    woken.clear()
    registry.fleet = Fleet(beats=(build_beat(),))
    await fleets.sweep(BASE)

    assert registry.published == ({}, {"default/alien", "default/good"})
    assert woken == [Key("Adapter", "default", "good")]
