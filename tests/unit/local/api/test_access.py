"""Roles and bindings."""

from pathlib import Path
from typing import Any

import pytest
from loraland_local.api import access, identity, kinds
from loraland_local.api.access import Attributes
from loraland_local.api.cluster import Cluster

Json = dict[str, Any]
RUNNER = identity.service_account("lab", "runner")


def _put(cluster: Cluster, resource: kinds.ResourceType, namespace: str, body: Json) -> None:
    name = body["metadata"]["name"]
    head = {"kind": resource.kind, "apiVersion": resource.api_version}
    cluster.store.put(resource.storage_key, (namespace, name), {**head, **body})


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A cluster in which lab/runner may read pods, and logs of the pod p."""
    made = Cluster(tmp_path, admin_token="admin")
    rules = [
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
        {
            "verbs": ["get"],
            "apiGroups": [""],
            "resources": ["pods/log"],
            "resourceNames": ["p"],
        },
    ]
    _put(made, kinds.ROLES, "lab", {"metadata": {"name": "r"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "runner", "namespace": "lab"}
    reference = {"kind": "Role", "name": "r", "apiGroup": kinds.RBAC_GROUP}
    binding = {"metadata": {"name": "rb"}, "roleRef": reference, "subjects": [subject]}
    _put(made, kinds.ROLE_BINDINGS, "lab", binding)
    return made


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(Attributes("get", "", "pods", namespace="lab"), True, id="bound"),
        pytest.param(Attributes("delete", "", "pods", namespace="lab"), False, id="other verb"),
        pytest.param(Attributes("get", "", "secrets", namespace="lab"), False, id="other kind"),
        pytest.param(Attributes("get", "", "pods", namespace="x"), False, id="other namespace"),
        pytest.param(Attributes("list", "", "pods"), False, id="all namespaces"),
        pytest.param(
            Attributes("get", "", "pods", "log", "lab", "p"), True, id="subresource by name"
        ),
        pytest.param(
            Attributes("get", "", "pods", "log", "lab", "q"), False, id="subresource of another"
        ),
        pytest.param(Attributes("get", path="/openapi/v3"), True, id="discovery"),
        pytest.param(Attributes("get", path="/metrics"), False, id="other path"),
    ],
)
def test_rules_decide(cluster: Cluster, asked: Attributes, expected: bool) -> None:
    """A request is allowed when some rule of some binding says so."""
    assert expected == access.decide(cluster.store, RUNNER, asked).allowed


def test_reason_names_binding_role_and_subject(cluster: Cluster) -> None:
    """`kubectl auth can-i` shows why."""
    decision = access.decide(cluster.store, RUNNER, Attributes("get", "", "pods", namespace="lab"))

    expected = 'RBAC: allowed by RoleBinding "rb/lab" of Role "r" to ServiceAccount "runner/lab"'
    assert decision.reason == expected


def test_cluster_binding_reaches_every_namespace(cluster: Cluster) -> None:
    """A ClusterRoleBinding to a group gives its rights everywhere."""
    subject = {"kind": "Group", "name": "system:serviceaccounts:lab"}
    reference = {"kind": "ClusterRole", "name": "view", "apiGroup": kinds.RBAC_GROUP}
    binding = {"metadata": {"name": "b"}, "roleRef": reference, "subjects": [subject]}
    _put(cluster, kinds.CLUSTER_ROLE_BINDINGS, "", binding)

    asked = Attributes("list", "apps", "deployments", namespace="other")

    assert access.decide(cluster.store, RUNNER, asked).allowed


def test_admin_may_do_everything(cluster: Cluster) -> None:
    """system:masters needs no binding."""
    assert access.decide(cluster.store, identity.ADMIN, Attributes("delete", "", "nodes")).allowed


def test_refusal_has_the_servers_words() -> None:
    """The message names user, verb, resource, group and place."""
    text = access.refusal(RUNNER, Attributes("get", "", "configmaps", namespace="lab"))

    expected = (
        'User "system:serviceaccount:lab:runner" cannot get resource "configmaps" in API group ""'
        ' in the namespace "lab"'
    )
    assert text == expected


def test_token_is_its_accounts_until_the_account_goes(cluster: Cluster) -> None:
    """A minted token names its service account; without the account it is worth nothing."""
    account = {"metadata": {"name": "runner", "namespace": "lab", "uid": "u"}}
    _put(cluster, kinds.SERVICE_ACCOUNTS, "lab", account)
    token, _ = cluster.tokens.mint(account, {})

    before = cluster.tokens.user(token)
    cluster.store.remove(kinds.SERVICE_ACCOUNTS.storage_key, ("lab", "runner"))

    assert before is not None
    assert before.name == "system:serviceaccount:lab:runner"
    assert cluster.tokens.user(token) is None


@pytest.mark.parametrize("token", ["", "admin ", "admin.é", "a\udcffb", "..", "a.b.c"], ids=repr)
def test_nonsense_is_nobodys_token(cluster: Cluster, token: str) -> None:
    """Whatever a header holds, the answer is 401 and not a failure of the server."""
    assert cluster.tokens.user(token) is None


def test_token_for_another_audience_is_not_for_the_api(cluster: Cluster) -> None:
    """A program that was shown such a token cannot use it to act as the pod."""
    account = {"metadata": {"name": "runner", "namespace": "lab", "uid": "u"}}
    _put(cluster, kinds.SERVICE_ACCOUNTS, "lab", account)

    token, _ = cluster.tokens.mint(account, {"audiences": ["vault"]})

    assert cluster.tokens.user(token) is None
    assert cluster.tokens.user(token, ["vault"]) is not None


def test_forged_token_is_nobodys(cluster: Cluster) -> None:
    """A changed signature is noticed."""
    account = {"metadata": {"name": "runner", "namespace": "lab", "uid": "u"}}
    _put(cluster, kinds.SERVICE_ACCOUNTS, "lab", account)
    token, _ = cluster.tokens.mint(account, {})

    assert cluster.tokens.user(token[:-2] + "xx") is None
