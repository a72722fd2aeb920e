"""The operator's account on an API server: it may do what the chart's rules say, and no more."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from kube_api import Api, Object, path_of

OPERATOR = "loraland-operator"
RULES = Path(__file__).parents[2] / "helm/loraland/files/rbac"
CLUSTER_WIDE = "apiextensions.k8s.io"
_ROOT = "/apis/rbac.authorization.k8s.io/v1"


def grant(api: Api, admin: Path, kubeconfig: Path, *, namespaces: Sequence[str]) -> None:
    """Write a kubeconfig of the account: with a ClusterRole, or a Role in each namespace given."""
    api.ensure(path_of("serviceaccounts"), {"metadata": {"name": OPERATOR}})
    lease = yaml.safe_load((RULES / "operator-lease.yaml").read_text())
    _bind(api, lease, f"{_ROOT}/namespaces/default")
    role = yaml.safe_load((RULES / "operator.yaml").read_text())
    if not namespaces:
        _bind(api, role, _ROOT)
    for namespace in namespaces:
        rules = [r for r in role["rules"] if CLUSTER_WIDE not in r["apiGroups"]]
        _bind(api, {**role, "kind": "Role", "rules": rules}, f"{_ROOT}/namespaces/{namespace}")
    _write_kubeconfig(api, admin, kubeconfig)


def _write_kubeconfig(api: Api, admin: Path, kubeconfig: Path) -> None:
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = path_of("serviceaccounts", OPERATOR, sub="token")
    token = api.call("POST", path, request)["status"]["token"]
    document = yaml.safe_load(admin.read_text())
    for entry in document["users"]:
        entry["user"] = {"token": token}
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(yaml.safe_dump(document))


def _bind(api: Api, role: Object, path: str) -> None:
    """Create the role, or renew one of an earlier run, and give it to the account."""
    kind, name = role["kind"], role["metadata"]["name"]
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": "default"}],
    }
    plural = kind.lower()
    if api.find(f"{path}/{plural}s/{name}") is not None:
        api.call("PUT", f"{path}/{plural}s/{name}", role)
    else:
        api.call("POST", f"{path}/{plural}s", role)
    api.ensure(f"{path}/{plural}bindings", binding)
