"""The objects that the operator makes, field by field and against Kubernetes' own schemas."""

import json
from typing import Any

import kubernetes_validate
import pytest
from loraland_core import jobspec
from loraland_core.catalogue import BaseModelEntry
from loraland_operator import manifests
from operator_objects import BASE, ENTRY, STORE, UID, build_job

KUBERNETES = "1.34"
EVERYTHING = {
    "numNodes": 2,
    "numProcPerNode": 4,
    "activeDeadlineSeconds": 3600,
    "backoffLimit": 5,
    "output": {"credentialsSecretRef": {"name": "store-keys"}},
    "dataset": {
        "pvc": {"claim": "rows", "path": "train.jsonl"},
        "prompt": "{a}",
        "completion": "{b}",
        "credentialsSecretRef": {"name": "data-keys"},
    },
    "pod": {
        "resources": {"limits": {"nvidia.com/mig-1g.10gb": "1"}},
        "nodeSelector": {"gpu": "a100"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "priorityClassName": "batch",
        "runtimeClassName": "nvidia",
        "serviceAccountName": "trainer",
        "imagePullSecrets": [{"name": "registry"}],
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        "labels": {"team": "search"},
        "annotations": {"note": "x"},
        "sharedMemory": "8Gi",
    },
}


def build(**spec: Any) -> dict[str, Any]:
    return manifests.build_job(build_job(**spec), ENTRY, image="img", log_format="json")


@pytest.mark.parametrize("spec", [{}, EVERYTHING, {"queueName": "team"}], ids=str)
def test_manifests_are_valid_kubernetes(spec: dict[str, Any]) -> None:
    """Kubernetes' own schemas accept each object, strictly."""
    job = build_job(**spec)
    job_file = manifests.build_job_file(job, ENTRY, STORE)
    made = [
        manifests.build_config_map(job, job_file),
        manifests.build_service(job),
        build(**spec),
    ]

    for manifest in made:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_every_pod_field_is_passed_on() -> None:
    """Nothing that a job's author says about its pod is lost."""
    template = build(**EVERYTHING)["spec"]["template"]
    spec, container = template["spec"], template["spec"]["containers"][0]

    for name in (
        "nodeSelector",
        "tolerations",
        "affinity",
        "topologySpreadConstraints",
        "priorityClassName",
        "runtimeClassName",
        "serviceAccountName",
        "imagePullSecrets",
    ):
        assert EVERYTHING["pod"][name] == spec[name], name  # type: ignore[index]
    assert container["resources"] == {"limits": {"nvidia.com/mig-1g.10gb": "1"}}
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in container["env"]
    assert template["metadata"]["labels"]["team"] == "search"
    assert template["metadata"]["annotations"] == {"note": "x"}
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    assert {"/dev/shm", "/mnt/dataset", "/etc/loraland"} <= mounts  # noqa: S108


def test_several_nodes_make_an_indexed_job() -> None:
    """Pods that train together have ranks, and an address for the first."""
    job = build(**EVERYTHING)
    env = {
        e["name"]: e.get("value") for e in job["spec"]["template"]["spec"]["containers"][0]["env"]
    }

    assert job["spec"]["completionMode"] == "Indexed"
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (2, 2)
    assert (env["MASTER_ADDR"], env["LORALAND_NUM_PROC_PER_NODE"]) == ("tickets-0.tickets", "4")


def test_pod_meets_the_restricted_standard() -> None:
    """No privileges, no writable root, no token of the cluster."""
    pod = build()["spec"]["template"]["spec"]
    container = pod["containers"][0]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_reserved_exit_codes_end_the_job_and_disruptions_do_not_count() -> None:
    """Trying again helps neither bad input nor a model too large; a drained node is no failure."""
    rules = build()["spec"]["podFailurePolicy"]["rules"]

    assert rules[0]["onExitCodes"]["values"] == [42, 43]
    assert [r["action"] for r in rules] == ["FailJob", "Ignore"]
    assert build()["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_secrets_are_referred_to_never_copied() -> None:
    """Keys reach the pod from the Secret; the ConfigMap holds none."""
    env = build(**EVERYTHING)["spec"]["template"]["spec"]["containers"][0]["env"]
    references = {
        e["name"]: (e["valueFrom"]["secretKeyRef"]["name"], e["valueFrom"]["secretKeyRef"]["key"])
        for e in env
        if "secretKeyRef" in e.get("valueFrom", {})
    }

    assert references["AWS_ACCESS_KEY_ID"] == ("store-keys", "AWS_ACCESS_KEY_ID")
    assert references["DATASET_AWS_ACCESS_KEY_ID"] == ("data-keys", "AWS_ACCESS_KEY_ID")
    assert references["HF_TOKEN"] == ("data-keys", "HF_TOKEN")


def test_variables_of_the_pod_stay_out_of_the_config_map() -> None:
    """Somebody may have written a password into one, and ConfigMaps are read by many."""
    job = build_job(pod={"env": [{"name": "WANDB_API_KEY", "value": "hunter2"}]})

    job_file = manifests.build_job_file(job, ENTRY, STORE)

    assert "hunter2" not in job_file


def test_author_of_the_job_overrides_an_environment_variable() -> None:
    """A name stands once, or the API server would refuse the pod."""
    pod = {"env": [{"name": "LORALAND_LOG_FORMAT", "value": "text"}]}
    env = build(pod=pod)["spec"]["template"]["spec"]["containers"][0]["env"]

    assert [e for e in env if e["name"] == "LORALAND_LOG_FORMAT"] == pod["env"]


def test_kueue_decides_about_suspension() -> None:
    """With a queue the label is ours and suspension is not."""
    job = build(queueName="team")

    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert "suspend" not in job["spec"]
    assert "suspend" not in manifests.build_job_lifecycle(build_job(queueName="team"))["spec"]


def test_resources_default_to_the_catalogues() -> None:
    """A job that says nothing gets what its base model needs."""
    entry = BaseModelEntry.model_validate(
        {"source": {"embedded": BASE}, "defaultResources": {"requests": {"cpu": "2"}}}
    )
    job = manifests.build_job(build_job(), entry, image="img", log_format="text")

    resources = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "2"}}


def test_job_file_is_what_the_trainer_reads() -> None:
    """Written here, parsed by the other side's reader, nothing lost."""
    job = build_job()
    config_map = manifests.build_config_map(job, manifests.build_job_file(job, ENTRY, STORE))

    (text,) = config_map["data"].values()
    parsed = jobspec.parse_job(text)
    assert (parsed.uid, parsed.adapter_name, parsed.store) == (UID, "tickets", STORE)
    assert json.loads(text)["spec"]["lora"]["rank"] == 8
    assert job.spec == parsed.spec
