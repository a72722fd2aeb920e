"""The platform's objects."""

import json
from typing import Any

import pytest
import yaml
from loraland_core import catalogue
from loraland_local import platform

SETTINGS = platform.Settings(
    version="9.9.9",
    store_url="http://127.77.0.1:9000",
    store_access_key="access",
    store_secret_key="hidden",
    operator_redis_url="redis://operator:o@127.77.0.1:6379/0",
    replica_redis_url="redis://replica:r@127.77.0.1:6379/0",
    token_sha256="ab" * 32,
    lease_rules=[{"apiGroups": [""], "resources": ["leases"], "verbs": ["get"]}],
    operator_rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    grpc_port=8500,
)


def find(kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
    everything = platform.build_prerequisites(SETTINGS) + platform.build_deployments(SETTINGS)
    (found,) = [
        obj
        for obj in everything
        if obj["kind"] == kind
        and obj["metadata"]["name"] == name
        and namespace in (None, obj["metadata"].get("namespace"))
    ]
    return found


def env_of(deployment: str) -> dict[str, dict[str, Any]]:
    pod = find("Deployment", deployment)["spec"]["template"]["spec"]
    return {entry["name"]: entry for entry in pod["containers"][0]["env"]}


def test_catalogue_is_one_that_core_can_read() -> None:
    """The laptop's catalogue parses, and knows the embedded base model."""
    text = find("ConfigMap", platform.CATALOGUE)["data"]["catalogue.yaml"]
    parsed = catalogue.parse(text)

    assert list(parsed.base_models) == [platform.BASE_MODEL]


def test_tokens_hold_a_hash_and_no_token() -> None:
    """The cluster learns the token's hash alone."""
    secret = find("Secret", platform.TOKENS_SECRET)["stringData"]["tokens.json"]
    (token,) = json.loads(secret)["tokens"]

    assert token == {"sha256": "ab" * 32, "tenant": "default", "roles": ["inference", "admin"]}


@pytest.mark.parametrize("namespace", ["loraland-system", "default"])
def test_store_credentials_are_in_both_namespaces(namespace: str) -> None:
    """Jobs of the user's namespace name the same Secret as the platform's own pods."""
    secret = find("Secret", platform.STORE_SECRET, namespace)

    assert secret["stringData"] == {
        "AWS_ACCESS_KEY_ID": "access",
        "AWS_SECRET_ACCESS_KEY": "hidden",
    }


@pytest.mark.parametrize(
    "deployment", [platform.OPERATOR, platform.inference_name(platform.BASE_MODEL)]
)
def test_deployments_carry_secrets_by_reference_only(deployment: str) -> None:
    """No password stands in a pod's specification."""
    text = yaml.safe_dump(find("Deployment", deployment))

    assert [s for s in ("hidden", "operator:o", "replica:r") if s in text] == []


def test_replicas_use_a_redis_user_of_their_own() -> None:
    """Only the operator gets the credentials that may write the registry."""
    inference = platform.inference_name(platform.BASE_MODEL)
    keys = [
        env_of(name)["LORALAND_REDIS_URL"]["valueFrom"]["secretKeyRef"]["key"]
        for name in (platform.OPERATOR, inference)
    ]

    assert keys == ["operator-url", "replica-url"]


def test_inference_gets_no_access_to_the_cluster() -> None:
    """A replica never talks to the Kubernetes API, so it has no token to do so."""
    name = platform.inference_name(platform.BASE_MODEL)
    pod = find("Deployment", name)["spec"]["template"]["spec"]

    assert pod["automountServiceAccountToken"] is False


def test_prerequisites_come_in_an_order_that_can_be_applied() -> None:
    """The namespace precedes what lies in it."""
    kinds = [obj["kind"] for obj in platform.build_prerequisites(SETTINGS)]

    assert kinds.index("Namespace") < kinds.index("ServiceAccount")
