"""Jobs, Deployments, garbage collection and namespaces, run for real on the embedded API."""

import json
from collections.abc import Iterator
from typing import Any

import laptop as laptops
import pytest
from laptop import Laptop

Object = dict[str, Any]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    with laptops.running(tmp_path_factory.mktemp("laptop")) as running:
        yield running


def template(script: str, policy: str = "Never", **container: Any) -> Object:
    command = ["sh", "-c", script]
    containers = [{"name": "c", "image": "busybox", "command": command, **container}]
    return {
        "metadata": {"labels": {"app": "a"}},
        "spec": {"restartPolicy": policy, "containers": containers},
    }


def job(name: str, script: str, **spec: Any) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template(script), **spec},
    }


def deployment(name: str, script: str, replicas: int = 2, **container: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "a"}},
            "template": template(script, "Always", **container),
        },
    }


def wait_condition(laptop: Laptop, name: str, kind: str) -> Object:
    """Return the job once the condition is true."""

    def look() -> Object | None:
        found = laptop.get("job", name)
        conditions = found.get("status", {}).get("conditions", [])
        is_true = any(c["type"] == kind and c["status"] == "True" for c in conditions)
        return found if is_true else None

    found: Object = laptop.wait(look, f"job {name} is {kind}")
    return found


def pods_of(laptop: Laptop, name: str) -> list[Object]:
    return laptop.items("pods", "-l", f"batch.kubernetes.io/job-name={name}")


def test_job_retries_and_completes(laptop: Laptop) -> None:
    """A job whose first pod fails runs a second one and completes; its pods lose their finalizers."""
    marker = laptop.directory / "tried"
    laptop.apply(job("retries", f"test -f {marker} || {{ touch {marker}; exit 1; }}"))
    found = wait_condition(laptop, "retries", "Complete")

    assert (found["status"]["failed"], found["status"]["succeeded"]) == (1, 1)
    assert len(pods_of(laptop, "retries")) == 2
    assert not any(pod["metadata"].get("finalizers") for pod in pods_of(laptop, "retries"))


def test_pod_failure_policy_ends_the_job(laptop: Laptop) -> None:
    """Exit code 42 is not retried where the policy says so."""
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    laptop.apply(job("gives-up", "exit 42", podFailurePolicy={"rules": [rule]}))
    found = wait_condition(laptop, "gives-up", "Failed")

    assert found["status"]["conditions"][-1]["reason"] == "PodFailurePolicy"
    assert len(pods_of(laptop, "gives-up")) == 1


def test_indexed_job_runs_every_index(laptop: Laptop) -> None:
    """Each pod of an Indexed job knows its own index."""
    script = "echo $JOB_COMPLETION_INDEX"
    laptop.apply(job("indexed", script, completions=3, parallelism=3, completionMode="Indexed"))
    found = wait_condition(laptop, "indexed", "Complete")

    said = [laptop.kubectl("logs", p["metadata"]["name"]) for p in pods_of(laptop, "indexed")]
    assert sorted("".join(said).split()) == ["0", "1", "2"]
    assert found["status"]["completedIndexes"] == "0-2"


def test_suspended_job_stops_and_resumes(laptop: Laptop) -> None:
    """Suspending a job ends its pod; resuming it starts another."""
    laptop.apply(job("pauses", "exec sleep 60"))
    laptop.wait(lambda: pods_of(laptop, "pauses"), "the pod is there")
    laptop.kubectl("patch", "job", "pauses", "-p", '{"spec": {"suspend": true}}')
    wait_condition(laptop, "pauses", "Suspended")
    laptop.wait(lambda: not pods_of(laptop, "pauses"), "the pod is gone")
    laptop.kubectl("patch", "job", "pauses", "-p", '{"spec": {"suspend": false}}')
    laptop.wait(lambda: pods_of(laptop, "pauses"), "the pod is there again")

    assert laptop.get("job", "pauses")["status"].get("failed", 0) == 0
    laptop.kubectl("delete", "job", "pauses", "--timeout=15s")
    laptop.wait(lambda: not pods_of(laptop, "pauses"), "the pod is gone with its job")


def test_finished_job_goes_after_its_ttl(laptop: Laptop) -> None:
    """``ttlSecondsAfterFinished`` removes job and pods."""
    laptop.apply(job("short-lived", "true", ttlSecondsAfterFinished=0))

    laptop.wait(lambda: not laptop.get("job", "short-lived"), "the job is gone")
    laptop.wait(lambda: not pods_of(laptop, "short-lived"), "its pods are gone")


def test_job_deadline_stops_its_pods(laptop: Laptop) -> None:
    """``activeDeadlineSeconds`` ends a job that takes too long."""
    laptop.apply(job("endless", "exec sleep 60", activeDeadlineSeconds=1))
    found = wait_condition(laptop, "endless", "Failed")

    assert found["status"]["conditions"][-1]["reason"] == "DeadlineExceeded"
    assert "active" not in found["status"] or found["status"]["active"] == 0


@pytest.mark.parametrize(
    "policy",
    [pytest.param("TerminatingOrFailed", id="at-once"), pytest.param("Failed", id="ended")],
)
def test_deleted_pod_of_a_job_is_replaced_and_goes(laptop: Laptop, policy: str) -> None:
    """A pod that somebody deletes counts as a failure, is replaced, and leaves nothing behind."""
    laptop.apply(job("loses", "exec sleep 60", podReplacementPolicy=policy))
    (first,) = laptop.wait(lambda: pods_of(laptop, "loses"), "the pod is there")
    name = first["metadata"]["name"]
    laptop.kubectl("wait", "pod", name, "--for=jsonpath={.status.phase}=Running", "--timeout=10s")
    laptop.kubectl("delete", "pod", name, "--timeout=15s")
    laptop.wait(lambda: pods_of(laptop, "loses"), "another pod is there")
    laptop.wait(lambda: laptop.get("job", "loses")["status"].get("failed") == 1, "it is counted")

    laptop.kubectl("delete", "job", "loses", "--cascade=foreground", "--timeout=15s")
    assert pods_of(laptop, "loses") == []


def test_orphaned_pod_of_a_job_can_be_deleted(laptop: Laptop) -> None:
    """A pod that outlives its job is held back by nothing."""
    laptop.apply(job("leaves-running", "exec sleep 60"))
    laptop.wait(lambda: pods_of(laptop, "leaves-running"), "the pod is there")
    laptop.kubectl("delete", "job", "leaves-running", "--cascade=orphan", "--timeout=15s")
    laptop.wait(
        lambda: "finalizers" not in pods_of(laptop, "leaves-running")[0]["metadata"],
        "the pod is free",
    )
    laptop.kubectl("delete", "pods", "-l", "job-name=leaves-running", "--now", "--timeout=15s")

    assert pods_of(laptop, "leaves-running") == []


READY = {"readinessProbe": {"exec": {"command": ["test", "-f", "ok"]}, "periodSeconds": 1}}


def test_deployment_rolls_out_scales_and_rolls_back(laptop: Laptop) -> None:
    """Kubectl sees a rollout through, scales it, and undoes the next one."""
    laptop.apply(deployment("web", "touch ok; exec sleep 600", **READY))
    first = laptop.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    laptop.kubectl("scale", "deployment/web", "--replicas=1")
    laptop.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    command = '[{"op": "replace", "path": "/spec/template/spec/containers/0/command/2", '
    command += '"value": "touch ok; exec sleep 601"}]'
    laptop.kubectl("patch", "deployment", "web", "--type=json", "-p", command)
    laptop.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    laptop.kubectl("rollout", "undo", "deployment/web")
    laptop.kubectl("rollout", "status", "deployment/web", "--timeout=30s")

    found = laptop.get("deployment", "web")
    assert "successfully rolled out" in first
    assert found["status"]["availableReplicas"] == 1
    assert found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert found["spec"]["template"]["spec"]["containers"][0]["command"][2].endswith("600")


def test_pod_with_changed_labels_is_replaced(laptop: Laptop) -> None:
    """A pod that is taken out of its set by its labels stays, and another one takes its place."""
    laptop.apply(deployment("set", "exec sleep 600", replicas=1))
    laptop.kubectl("rollout", "status", "deployment/set", "--timeout=30s")
    names = [n for n in laptop.kubectl("get", "pods", "-o", "name").split() if "/set-" in n]
    laptop.kubectl("label", names[0], "pod-template-hash=taken", "--overwrite")

    def look() -> list[str]:
        found = laptop.kubectl("get", "pods", "-o", "name").split()
        return [name for name in found if "/set-" in name and name != names[0]]

    laptop.wait(look, "another pod is there")
    assert "ownerReferences" not in laptop.get(names[0])["metadata"]
    laptop.kubectl("delete", "deployment/set", names[0], "--now")


def test_deleted_deployment_takes_its_pods_along(laptop: Laptop) -> None:
    """Foreground deletion ends when sets and pods are gone."""
    laptop.apply(deployment("gone", "exec sleep 600"))
    laptop.kubectl("rollout", "status", "deployment/gone", "--timeout=30s")
    laptop.kubectl("delete", "deployment", "gone", "--cascade=foreground", "--timeout=30s")

    names = [found["metadata"]["name"] for found in laptop.items("rs,pods")]
    assert [name for name in names if name.startswith("gone")] == []


def config_map(name: str, owner: Object | None = None) -> Object:
    built: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    if owner is not None:
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"]}
        reference["uid"] = owner["metadata"]["uid"]
        built["metadata"]["ownerReferences"] = [reference]
    return built


def test_dependents_go_with_their_owner(laptop: Laptop) -> None:
    """Background deletion of an owner removes what it owns, and what that owns."""
    laptop.apply(config_map("owner"))
    laptop.apply(config_map("child", laptop.get("configmap", "owner")))
    laptop.apply(config_map("grandchild", laptop.get("configmap", "child")))
    laptop.kubectl("delete", "configmap", "owner")

    laptop.wait(lambda: not laptop.get("configmap", "grandchild"), "the grandchild is gone")
    assert laptop.get("configmap", "child") == {}


def test_orphaned_dependents_stay(laptop: Laptop) -> None:
    """``--cascade=orphan`` leaves the dependents, without their owner reference."""
    laptop.apply(config_map("leaves"))
    laptop.apply(config_map("stays", laptop.get("configmap", "leaves")))
    laptop.kubectl("delete", "configmap", "leaves", "--cascade=orphan", "--timeout=15s")

    assert "ownerReferences" not in laptop.get("configmap", "stays")["metadata"]


def test_custom_resources_own_their_children(laptop: Laptop) -> None:
    """Garbage collection follows kinds that came later."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True}
    version |= {"schema": {"openAPIV3Schema": schema}}
    names = {"plural": "boxes", "singular": "box", "kind": "Box"}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    definition |= {"metadata": {"name": "boxes.test.dev"}}
    definition |= {
        "spec": {"group": "test.dev", "scope": "Namespaced", "names": names, "versions": [version]}
    }
    laptop.apply(definition)
    laptop.kubectl("wait", "--for=condition=Established", "crd/boxes.test.dev", "--timeout=10s")
    laptop.apply({"apiVersion": "test.dev/v1", "kind": "Box", "metadata": {"name": "b"}})
    uid = laptop.get("box", "b")["metadata"]["uid"]
    child = config_map("in-the-box")
    child["metadata"]["ownerReferences"] = [
        {"apiVersion": "test.dev/v1", "kind": "Box", "name": "b", "uid": uid}
    ]
    laptop.apply(child)
    laptop.kubectl("delete", "box", "b")

    laptop.wait(lambda: not laptop.get("configmap", "in-the-box"), "the child is gone")


def test_namespace_is_furnished_and_emptied(laptop: Laptop) -> None:
    """A namespace gets its ServiceAccount and certificate, and takes its content along."""
    laptop.kubectl("create", "namespace", "room")

    def is_furnished() -> bool:
        account = laptop.get("-n", "room", "serviceaccount", "default")
        certificate = laptop.get("-n", "room", "configmap", "kube-root-ca.crt")
        return bool(account and certificate.get("data", {}).get("ca.crt"))

    laptop.wait(is_furnished, "the namespace is furnished")
    built = job("inside", "exec sleep 60")
    built["metadata"]["namespace"] = "room"
    laptop.apply(built)
    laptop.wait(lambda: laptop.items("-n", "room", "pods"), "the pod is there")
    laptop.kubectl("delete", "namespace", "room", "--timeout=30s")

    assert laptop.get("namespace", "room") == {}
    assert [p for p in laptop.items("-A", "pods") if p["metadata"]["namespace"] == "room"] == []


def test_controllers_that_restart_do_nothing_twice(laptop: Laptop) -> None:
    """A job in the middle of its run is neither started again nor miscounted."""
    laptop.apply(job("survives", "sleep 1.5"))
    laptop.wait(lambda: pods_of(laptop, "survives"), "the pod is there")
    laptop.kill("controllers")
    laptop.start_controllers()
    found = wait_condition(laptop, "survives", "Complete")

    assert len(pods_of(laptop, "survives")) == 1
    assert json.dumps(found["status"]["uncountedTerminatedPods"]) == "{}"
    assert found["status"]["succeeded"] == 1
