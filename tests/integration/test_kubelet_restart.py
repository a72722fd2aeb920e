"""What becomes of pods when their kubelet ends, in whatever way, and comes back."""

from collections.abc import Iterator
from typing import Any

import laptop as laptops
import pytest
from laptop import Laptop

Object = dict[str, Any]

# A family that a mere kill of the process group would not catch.
FAMILY = "setsid sleep 300 & (sleep 301 & sleep 302 &); exec sleep 303"


@pytest.fixture
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    with laptops.running(tmp_path_factory.mktemp("laptop")) as running:
        yield running


def template(policy: str) -> Object:
    containers = [{"name": "c", "image": "busybox", "command": ["sh", "-c", FAMILY]}]
    return {
        "metadata": {"labels": {"app": "a"}},
        "spec": {"restartPolicy": policy, "containers": containers},
    }


def apply_workloads(laptop: Laptop) -> None:
    """Apply a job and a deployment, and wait until both run."""
    job: Object = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}}
    job["spec"] = {"template": template("Never")}
    spec: Object = {"replicas": 1, "selector": {"matchLabels": {"app": "a"}}}
    spec["template"] = template("Always")
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}
    laptop.apply(job, {**deployment, "spec": spec})
    laptop.wait(lambda: len(running_pods(laptop)) == 2, "both pods run")
    laptop.wait(lambda: num_sleepers(laptop) == 8, "the families run")


def num_sleepers(laptop: Laptop) -> int:
    return sum(line.startswith("sleep ") for line in laptop.strays())


def running_pods(laptop: Laptop) -> list[Object]:
    return [pod for pod in laptop.items("pods") if pod.get("status", {}).get("phase") == "Running"]


def restart_counts(laptop: Laptop) -> dict[str, int]:
    """Return restarts by the kind of the running pods' owners."""
    return {
        pod["metadata"]["ownerReferences"][0]["kind"]: pod["status"]["containerStatuses"][0][
            "restartCount"
        ]
        for pod in running_pods(laptop)
    }


@pytest.mark.parametrize(
    "signal_name", [pytest.param("kill", id="sigkill"), pytest.param("terminate", id="sigterm")]
)
def test_pods_survive_their_kubelet_as_objects_only(laptop: Laptop, signal_name: str) -> None:
    """No process outlives the kubelet; the next one restarts what may be, and fails the rest."""
    apply_workloads(laptop)
    kubelet = laptop.processes.pop("kubelet")
    getattr(kubelet, signal_name)()
    kubelet.wait(timeout=10)
    laptop.wait(lambda: not laptop.strays(), "no process is left", limit_s=60)
    phases_meanwhile = {pod["status"]["phase"] for pod in laptop.items("pods")}
    (laptop.directory / "kubelet.log").write_text("")
    laptop.start_kubelet()
    laptop.wait(lambda: len(restart_counts(laptop)) == 2, "both workloads run again")

    failed = [pod for pod in laptop.items("pods") if pod["status"]["phase"] == "Failed"]
    terminated = failed[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    assert phases_meanwhile == {"Running"}
    assert (terminated["exitCode"], terminated["reason"]) == (137, "ContainerStatusUnknown")
    assert len(failed) == 1
    assert restart_counts(laptop) == {"Job": 0, "ReplicaSet": 1}
    assert laptop.get("job", "job")["status"]["failed"] == 1


def test_pods_go_on_while_the_api_is_away(laptop: Laptop) -> None:
    """A job ends well although the API server was killed and started again meanwhile."""
    port = laptop.kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
    marker = laptop.directory / "may-end"
    script = f"until test -e {marker}; do sleep 0.05; done"
    job: Object = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "patient"}}
    job["spec"] = {"template": template("Never")}
    job["spec"]["template"]["spec"]["containers"][0]["command"][2] = script
    laptop.apply(job)
    laptop.wait(lambda: len(running_pods(laptop)) == 1, "the pod runs")
    laptop.kill("api")
    marker.touch()
    (laptop.directory / "api.log").write_text("")
    laptop.start_api(int(port.rpartition(":")[2]))
    laptop.kubectl("wait", "--for=condition=Complete", "job/patient", "--timeout=30s")

    found = laptop.get("job", "patient")["status"]
    assert (found["succeeded"], found.get("failed", 0)) == (1, 0)
