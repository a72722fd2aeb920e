"""The chart's life in a cluster, by Helm itself: install, upgrade, roll back, test, uninstall."""

import copy
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import charts
import helm_python as helm
import laptop as laptops
import pytest
import servers
import tiny_base
import yaml
from laptop import Laptop
from loraland_core import redis_acl

RELEASE = "loraland"
CRD = "adapters.loraland.dev"
FOREIGN = {"ServiceMonitor", "PrometheusRule", "Certificate", "ScaledObject"}
LIMIT_S = 120
TOKEN_SHA256 = hashlib.sha256(b"secret").hexdigest()


def config(kubeconfig: Path) -> helm.Config:
    return helm.Config(kubeconfig_path=kubeconfig, namespace=charts.NAMESPACE)


def install(
    found: helm.Config,
    values: charts.Object,
    *,
    chart: Path = charts.CHART,
    wait: str | None = None,
) -> charts.Object:
    return found.install(
        str(chart), RELEASE, values, create_namespace=True, timeout=LIMIT_S, wait=wait
    )


def upgrade(found: helm.Config, values: charts.Object) -> charts.Object:
    return found.upgrade(str(charts.CHART), RELEASE, values, timeout=LIMIT_S)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Laptop]:
    """An API alone: nothing runs, so that hooks would wait for ever."""
    with laptops.running(tmp_path, with_kubelet=False) as running:
        yield running


def slots(laptop: Laptop) -> str:
    deployment = laptop.get(
        *("deploy", "loraland-inference-smollm2-135m-instruct", "-n", charts.NAMESPACE)
    )
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    return str(charts.environment(container)["LORALAND_NUM_SLOTS"])


def test_release_is_upgraded_rolled_back_and_removed(bare: Laptop) -> None:
    """Each step changes what it says, and what is left at the end are the definitions."""
    without_hook = {"uninstall": {"releaseFinalizers": {"enabled": False}}}
    first = {**charts.CASES["local"], **without_hook}
    second = {**first, "inference": {**first["inference"], "numSlots": 3}}

    with config(bare.kubeconfig) as found:
        assert install(found, first)["status"] == "deployed"
        before = slots(bare)
        assert upgrade(found, second)["revision"] == 2
        upgraded = slots(bare)
        found.rollback(RELEASE, version=1, timeout=LIMIT_S)
        rolled_back = slots(bare)
        statuses = [entry["status"] for entry in found.history(RELEASE)]
        found.uninstall(RELEASE, timeout=LIMIT_S)

    assert (before, upgraded, rolled_back) == ("8", "3", "8")
    assert statuses == ["superseded", "superseded", "deployed"]
    left = [
        item["metadata"]["name"]
        for item in bare.items(
            "deploy,svc,cm,secret,sa,role,rolebinding,netpol,clusterrole,crd", "-A"
        )
        if "loraland" in json.dumps(item["metadata"].get("labels", {}))
    ]
    assert sorted(left) == ["adapters.loraland.dev", "finetunejobs.loraland.dev"]


def test_api_takes_every_object_of_every_case(bare: Laptop) -> None:
    """Whatever the values say, the API server admits what comes of them, and knows each field."""
    for namespace in (charts.NAMESPACE, "team-a", "team-b"):
        bare.kubectl("create", "namespace", namespace)
    # A pod is admitted only where its account is.
    bare.kubectl("create", "serviceaccount", "loraland-inference", "-n", charts.NAMESPACE)

    for values in charts.CASES.values():
        objects = [obj for obj in charts.render(values) if obj["kind"] not in FOREIGN]
        said = bare.kubectl(
            *("apply", "--server-side", "--dry-run=server", "--force-conflicts"),
            *("--validate=strict", "-f", "-"),
            stdin=yaml.safe_dump_all(objects),
        )
        assert len(said.splitlines()) == len(objects)


def test_way_of_replacing_pods_can_be_changed(bare: Laptop) -> None:
    """What the API server filled in for one strategy does not forbid the other."""
    values = charts.CASES["local"]
    rolling = {"strategy": {"type": "RollingUpdate"}}
    with config(bare.kubeconfig) as found:
        install(found, {**values, "operator": {**values["operator"], **rolling}})

        upgrade(found, values)

    deployment = bare.get("deploy", "loraland-operator", "-n", charts.NAMESPACE)
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_definitions_are_upgraded_with_the_release(bare: Laptop, tmp_path: Path) -> None:
    """A release that an older chart made has the new chart's definitions after an upgrade."""
    older = shutil.copytree(charts.CHART, tmp_path / "loraland")
    file = older / "files" / "crds" / "adapters.yaml"
    file.write_text(file.read_text().replace("- adp\n", "- old\n"))
    with config(bare.kubeconfig) as found:
        install(found, charts.CASES["local"], chart=older)
        before = bare.get("crd", CRD)["spec"]["names"]["shortNames"]

        upgrade(found, charts.CASES["local"])

    assert (before, bare.get("crd", CRD)["spec"]["names"]["shortNames"]) == (["old"], ["adp"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Laptop, charts.Object]]:
    """A laptop's cluster with our images, a Redis with our users, an S3; and values for them."""
    directory = tmp_path_factory.mktemp("chart")
    state = tmp_path_factory.mktemp("laptop")
    acl = directory / "users.acl"
    acl.write_text(redis_acl.build_file(dict.fromkeys(redis_acl.RULES, "secret")))
    redis_port, s3_port = servers.free_port(), servers.free_port()
    with ExitStack() as stack:
        stack.enter_context(servers.redis_process(redis_port, "--aclfile", str(acl)))
        stack.enter_context(servers.s3_process(s3_port))
        laptop = stack.enter_context(laptops.running(state))
        write_images(laptop)
        laptop.kubectl("create", "namespace", charts.NAMESPACE)
        for name, content in secrets(redis_port).items():
            literals = [f"--from-literal={key}={value}" for key, value in content.items()]
            laptop.kubectl("create", "secret", "generic", name, "-n", charts.NAMESPACE, *literals)
        yield laptop, values(tiny_base.write_base_model(directory / "base"), s3_port)


def write_images(laptop: Laptop) -> None:
    images = {
        f"loraland/{part}": {
            "entrypoint": [sys.executable, "-m", f"loraland_{part}"],
            "env": {
                "OMP_NUM_THREADS": "1",
                "LORALAND_ADAPTER_DIR": str(laptop.directory / "adapters"),
            },
        }
        for part in ("operator", "inference")
    }
    (laptop.directory / "images.json").write_text(json.dumps({"images": images}))


def secrets(redis_port: int) -> dict[str, dict[str, str]]:
    token = {"sha256": TOKEN_SHA256, "tenant": "default", "roles": ["inference"]}
    keys = servers.S3_CREDENTIALS
    return {
        "loraland-store": {
            "AWS_ACCESS_KEY_ID": keys["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": keys["aws_secret_access_key"],
        },
        "loraland-redis": {
            f"{party}-url": f"redis://{party}:secret@127.0.0.1:{redis_port}/0"
            for party in ("operator", "replica")
        },
        "loraland-tokens": {"tokens.json": json.dumps({"schemaVersion": 1, "tokens": [token]})},
    }


def values(base: Path, s3_port: int) -> charts.Object:
    found = copy.deepcopy(charts.CASES["local"])
    found["store"] |= {"endpointUrl": f"http://127.0.0.1:{s3_port}"}
    found["catalogue"] = {
        "baseModels": {
            "tiny": {
                "source": {"directory": str(base)},
                "serving": {"dtype": "float32", "quantization": "none"},
                "limits": {"contextTokens": 128, "maxRank": 8},
            }
        }
    }
    found["inference"] |= {"deployments": [{"baseModel": "tiny", "kvMemoryMib": 64}]}
    return found


def adapter(name: str) -> charts.Object:
    """Build an Adapter that somebody has to let go before it can be deleted."""
    metadata = {"name": name, "namespace": "default", "finalizers": ["loraland.dev/unpublish"]}
    return {
        "apiVersion": "loraland.dev/v1alpha1",
        "kind": "Adapter",
        "metadata": metadata,
        "spec": {"baseModel": "tiny", "source": {"artifact": {"digest": "0" * 64}}},
    }


@pytest.mark.slow
def test_release_runs_passes_its_test_and_leaves_nothing_stuck(
    cluster: tuple[Laptop, charts.Object],
) -> None:
    """Operator and replica become available, `helm test` finds them, and uninstalling lets go."""
    laptop, wanted = cluster
    with config(laptop.kubeconfig) as found:
        install(found, wanted, wait="watcher")
        found.test(RELEASE, timeout=LIMIT_S)
        laptop.apply(adapter("kept"))

        found.uninstall(RELEASE, timeout=LIMIT_S)

    kept = laptop.get("adapter", "kept")
    assert kept["metadata"].get("finalizers", []) == []
    laptop.kubectl("delete", "adapter", "kept", "--timeout=30s")
    assert laptop.items("deploy,jobs", "-A") == []
    laptop.wait(lambda: not laptop.strays(), "no process of a pod is left", limit_s=60)
