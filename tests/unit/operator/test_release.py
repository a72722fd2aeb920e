"""What an uninstallation does first, where a part of what it looks for is not there."""

import asyncio
from typing import Any

import pytest
from loraland_core.errors import NotFound
from loraland_operator.release import release


class FreeLease:
    """A Lease that nobody holds."""

    async def seize(self, _: int) -> bool:
        return False


class Undefined:
    """An API server without our definitions."""

    async def list(self, *_: Any) -> list[Any]:
        raise NotFound("404 page not found")


@pytest.mark.parametrize("namespaces", [(), ("team-a", "team-b")], ids=["all", "some"])
def test_absent_definitions_hold_nothing_up(namespaces: tuple[str, ...]) -> None:
    """Whoever removed them took all Adapters along: the uninstallation goes on."""
    cluster: Any = Undefined()
    lease: Any = FreeLease()
    num_released = asyncio.run(release(cluster, lease, namespaces))

    assert num_released == 0
