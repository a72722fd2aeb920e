"""Names of pods become their addresses."""

from typing import Any

import pytest
from loraland_local.kubelet import hosts
from loraland_local.kubelet.environment import MissingObjectError


def pod(hostname: str, ip: str = "", *, phase: str = "Running", namespace: str = "a") -> Any:
    return {
        "metadata": {"name": hostname, "namespace": namespace},
        "spec": {"hostname": hostname, "subdomain": "train"},
        "status": {"podIP": ip, "phase": phase},
    }


class Pods:
    def __init__(self, *pods: Any) -> None:
        self._pods = list(pods)

    async def list(self, _: Any) -> tuple[list[Any], str]:
        return self._pods, "1"


async def test_name_below_the_service_becomes_an_address() -> None:
    """The pod of that name, in the same namespace, that still runs."""
    cluster = Pods(
        pod("train-0", "127.0.0.2", phase="Failed"),
        pod("train-0", "127.0.0.3", namespace="b"),
        pod("train-0", "127.0.0.4"),
    )
    variables = {"MASTER_ADDR": "train-0.train", "OTHER": "train", "MASTER_PORT": "29500"}

    found = await hosts.resolve(variables, pod("train-1"), cluster)  # type: ignore[arg-type]

    assert found == variables | {"MASTER_ADDR": "127.0.0.4"}


async def test_pod_without_an_address_is_waited_for() -> None:
    """The container is tried again, as for a ConfigMap that is not there yet."""
    cluster = Pods(pod("train-0"))

    with pytest.raises(MissingObjectError, match="train-0"):
        await hosts.resolve({"A": "train-0.train"}, pod("train-1"), cluster)  # type: ignore[arg-type]
