"""What the stack believes of its pods."""

from typing import Any

import pytest
from loraland_local import installation

NOON_S = 1_795_521_600.0
NOON = "2026-11-24T12:00:00Z"
EARLIER = "2026-11-24T11:59:59Z"


class OnePod:
    """A cluster with one pod of a component."""

    def __init__(self, status: dict[str, Any]) -> None:
        self._pod = {"metadata": {"name": "inference-0"}, "status": status}

    async def list(self, *_: Any, **__: Any) -> tuple[list[dict[str, Any]], str]:
        return [self._pod], "1"


def running(started_at: str, *, ready: str = "True") -> dict[str, Any]:
    return {
        "conditions": [{"type": "Ready", "status": ready}],
        "containerStatuses": [{"state": {"running": {"startedAt": started_at}}}],
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(running(NOON), True, id="of-this-stack"),
        pytest.param(running(EARLIER), False, id="what-an-earlier-stack-wrote"),
        pytest.param(running(NOON, ready="False"), False, id="runs-and-is-not-ready"),
        pytest.param(
            running(NOON) | {"containerStatuses": [{"state": {"waiting": {}}}]}, False, id="waits"
        ),
    ],
)
async def test_pod_is_ready_only_by_what_this_stack_started(
    status: dict[str, Any], expected: bool
) -> None:
    """A status that outlived its stack does not pass for a pod that serves."""
    found = await installation.pods(OnePod(status), "inference", since_s=NOON_S + 0.7)  # type: ignore[arg-type]

    assert [pod.is_ready for pod in found] == [expected]
