"""Managed fields and server-side apply."""

from typing import Any

import pytest
from loraland_local.api import definitions, kinds, ownership
from loraland_local.api.errors import ApiError
from loraland_local.api.ownership import APPLY, UPDATE, Manager

Json = dict[str, Any]

DEPLOYMENTS = definitions.root(kinds.builtin("deployments", "apps"))
MAPS = definitions.root(kinds.CONFIG_MAPS)


def _map(**data: str) -> Json:
    head: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    return {**head, "data": data} if data else head


def _apply(live: Json | None, config: Json, name: str, *, force: bool = False) -> Json:
    manager = Manager(name, APPLY, "v1")
    return ownership.apply(
        live, config, MAPS, manager, "2026-01-01T00:00:00Z", force=force, has_status=False
    )


def _update(old: Json | None, new: Json, name: str, **options: Any) -> Json:
    manager = Manager(name, UPDATE, "v1", options.get("subresource", ""))
    return ownership.record_update(
        old, new, MAPS, manager, "2026-01-01T00:00:00Z", has_status=False
    )


def _owners(obj: Json) -> dict[str, set[str]]:
    return {
        manager.name: {path[1][2:] for path in owned.paths if path[0] == "f:data" and path[1:]}
        for manager, owned in ownership.read(obj).items()
    }


def test_applied_fields_belong_to_their_manager() -> None:
    """A first apply creates the object and owns what it names."""
    made = _apply(None, _map(a="1"), "one")

    assert made["data"] == {"a": "1"}
    assert _owners(made) == {"one": {"a"}}


def test_fields_of_two_managers_live_side_by_side() -> None:
    """Applying other fields takes nothing away."""
    made = _apply(_apply(None, _map(a="1"), "one"), _map(b="2"), "two")

    assert made["data"] == {"a": "1", "b": "2"}
    assert _owners(made) == {"one": {"a"}, "two": {"b"}}


def test_another_value_for_an_owned_field_is_a_conflict() -> None:
    """The answer names manager and field."""
    live = _apply(None, _map(a="1"), "one")

    with pytest.raises(ApiError) as caught:
        _apply(live, _map(a="2"), "two")

    assert caught.value.message == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    assert caught.value.code == 409


def test_the_same_value_is_owned_together() -> None:
    """Agreement is no conflict."""
    made = _apply(_apply(None, _map(a="1"), "one"), _map(a="1"), "two")

    assert _owners(made) == {"one": {"a"}, "two": {"a"}}


def test_force_takes_the_field_over() -> None:
    """A forced apply leaves the former owner without the field."""
    live = _apply(None, _map(a="1", b="1"), "one")

    made = _apply(live, _map(a="2"), "two", force=True)

    assert made["data"] == {"a": "2", "b": "1"}
    assert _owners(made) == {"one": {"b"}, "two": {"a"}}


def test_field_left_out_by_its_only_owner_goes() -> None:
    """Applying less removes what nobody else owns, and keeps the rest."""
    live = _apply(_apply(None, _map(a="1", b="2"), "one"), _map(b="2"), "two")

    made = _apply(live, _map(), "one")

    assert made["data"] == {"b": "2"}
    assert _owners(made) == {"two": {"b"}}


def test_applying_the_same_again_changes_nothing() -> None:
    """Not even the time of the last change."""
    live = _apply(None, _map(a="1"), "one")

    assert _apply(live, _map(a="1"), "one") is live


def test_conflict_with_an_update_names_its_version() -> None:
    """Who changed a field by update is named with the API version."""
    live = _update(None, _map(a="1"), "editor")

    with pytest.raises(ApiError, match=r'conflict with "editor" using v1: \.data\.a'):
        _apply(live, _map(a="2"), "two")


def test_update_takes_what_it_changes() -> None:
    """An update owns the fields it changed and those only."""
    old = _apply(None, _map(a="1", b="1"), "one")
    new = {**old, "data": {"a": "2", "b": "1"}}

    made = _update(old, new, "editor")

    assert _owners(made) == {"one": {"b"}, "editor": {"a"}}


def test_removed_fields_are_nobodys() -> None:
    """What an update removes is taken from every owner."""
    old = _apply(None, _map(a="1"), "one")
    new = {key: value for key, value in old.items() if key != "data"}

    assert ownership.read(_update(old, new, "editor")) == {}


def test_status_belongs_to_the_status_subresource() -> None:
    """A write to the main resource owns no status."""
    manager = Manager("one", APPLY, "apps/v1")
    config = {"metadata": {"name": "d"}, "spec": {"replicas": 2}, "status": {"replicas": 2}}

    made = ownership.apply(None, config, DEPLOYMENTS, manager, "now", force=False, has_status=True)

    assert made["metadata"]["managedFields"][0]["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


def test_containers_merge_by_name() -> None:
    """Two managers may each own a container of a pod template."""

    def config(name: str) -> Json:
        containers = [{"name": name, "image": "i"}]
        return {
            "metadata": {"name": "d"},
            "spec": {"template": {"spec": {"containers": containers}}},
        }

    live: Json | None = None
    for name in ("one", "two"):
        live = ownership.apply(
            live,
            config(name),
            DEPLOYMENTS,
            Manager(name, APPLY, "apps/v1"),
            "now",
            force=False,
            has_status=True,
        )

    assert live is not None
    names = [entry["name"] for entry in live["spec"]["template"]["spec"]["containers"]]
    assert names == ["one", "two"]
