"""Who may act as whom, asked over HTTP."""

from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from api_world import World
from loraland_local.api import kinds
from loraland_local.api.server import Server

RULES = [
    {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["eve"]}
]


@pytest.mark.parametrize(
    "impersonated",
    [
        {},
        {"Impersonate-User": "root"},
        {"Impersonate-User": "eve"},
        {"Impersonate-User": "eve", "Impersonate-Group": "system:masters"},
    ],
    ids=["itself", "another-user", "the-user", "the-user-in-a-mighty-group"],
)
async def test_right_to_act_as_a_user_gives_no_groups(
    tmp_path: Path, impersonated: dict[str, str]
) -> None:
    """Whoever may be eve may not be a member of what it likes."""
    world = World(tmp_path)
    account = world.create(kinds.SERVICE_ACCOUNTS, {"metadata": {"name": "runner"}})
    world.create(kinds.CLUSTER_ROLES, {"metadata": {"name": "eves"}, "rules": RULES}, "")
    subject = {"kind": "ServiceAccount", "name": "runner", "namespace": "default"}
    reference = {"kind": "ClusterRole", "name": "eves", "apiGroup": kinds.RBAC_GROUP}
    binding = {"metadata": {"name": "b"}, "roleRef": reference, "subjects": [subject]}
    world.create(kinds.CLUSTER_ROLE_BINDINGS, binding, "")
    token, _ = world.cluster.tokens.mint(account, {})
    server = Server(world.cluster, address="127.0.0.1:0")

    async with TestClient(TestServer(server.application())) as client:
        headers = {"Authorization": f"Bearer {token}", **impersonated}
        async with client.get("/api/v1/namespaces/default/secrets", headers=headers) as reply:
            status = reply.status

    assert status == 403
