"""The mirror keeps the newest version of each object."""

from typing import Any

import pytest
from loraland_operator.mirror import Mirror
from operator_objects import UID, build_pod


def build(version: str, *, uid: str = "u", name: str = "x") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": uid, "resourceVersion": version}
    return {"kind": "Adapter", "metadata": metadata}


@pytest.mark.parametrize(
    ("before", "then", "is_news"),
    [
        pytest.param(build("9"), build("10"), True, id="newer"),
        pytest.param(build("10"), build("9"), False, id="older-comes-late"),
        pytest.param(build("10"), build("10"), False, id="the-same"),
        pytest.param(build("10"), build("9", uid="other"), True, id="another-of-the-name"),
    ],
)
def test_put_keeps_the_newer(before: dict[str, Any], then: dict[str, Any], is_news: bool) -> None:
    """Our own writes and the watch stream may come in any order."""
    mirror = Mirror()
    mirror.put(before)

    assert is_news == mirror.put(then)
    assert mirror.find("Adapter", "default", "x") == (then if is_news else before)


def test_late_deletion_spares_the_successor() -> None:
    """Deleting one object does not hide another of its name."""
    mirror = Mirror()
    mirror.put(build("1", uid="old"))
    mirror.put(build("2", uid="new"))
    mirror.remove(build("1", uid="old"))

    assert mirror.find("Adapter", "default", "x") == build("2", uid="new")


def test_pods_are_found_by_their_job() -> None:
    """Pods come and go with the uid of their FineTuneJob."""
    mirror = Mirror()
    first, second = build_pod(name="a"), build_pod(name="b")
    mirror.put(first)
    mirror.put(second)
    mirror.remove(first)

    assert mirror.pods_of(UID) == [second]
    assert mirror.pods_of("another") == []
