"""Manifests of the objects that the operator makes. Pure; names follow from the owner's name."""

from typing import Any

from loraland_core import artifacts, jobspec, names
from loraland_core.catalogue import BaseModelEntry
from loraland_core.resources import Adapter, FineTuneJob, SecretRef
from loraland_core.resources.finetunejob import AdapterTemplate, PodSpec
from loraland_core.store import StoreConfig

from loraland_operator import trainer_pod

Manifest = dict[str, Any]

# Owns ``suspend`` and the deadline of a Job that runs already; the template stays as it was made.
MANAGER_LIFECYCLE = f"{names.MANAGER_OPERATOR}-lifecycle"
# The API server's limit for a ConfigMap is 1 MiB; names and labels need a little of it.
MAX_JOB_FILE_BYTES = 1024 * 1024 - 4096


def adapter_name(job: FineTuneJob) -> str:
    """Return the name of the Adapter that the job publishes."""
    return job.spec.output.adapter.name or job.metadata.name


def build_job_file(job: FineTuneJob, entry: BaseModelEntry, store: StoreConfig) -> str:
    """Return what the training pod reads; not ``pod``, whose variables may hold a secret."""
    return jobspec.JobSpec(
        name=job.metadata.name,
        namespace=job.metadata.namespace,
        uid=job.metadata.uid,
        adapter_name=adapter_name(job),
        base_model=entry,
        store=store,
        spec=job.spec.model_copy(update={"pod": PodSpec()}),
    ).to_json()


def build_config_map(job: FineTuneJob, job_file: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _child_metadata(job, trainer_pod.config_map_name(job.metadata.name)),
        "data": {jobspec.JOB_FILE.rsplit("/", 1)[1]: job_file},
    }


def build_service(job: FineTuneJob) -> Manifest:
    """Return the headless Service through which the pods of several nodes find the first one."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _child_metadata(job, job.metadata.name),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_JOB_UID: job.metadata.uid},
            "ports": [{"name": "master", "port": trainer_pod.MASTER_PORT}],
        },
    }


def build_job(job: FineTuneJob, entry: BaseModelEntry, *, image: str, log_format: str) -> Manifest:
    """Return the batch/v1 Job; with a queue name, Kueue decides about ``suspend``."""
    spec = job.spec
    metadata = _child_metadata(job, job.metadata.name)
    job_spec: Manifest = {
        "backoffLimit": spec.backoff_limit,
        "podFailurePolicy": failure_policy(),
        "template": trainer_pod.build(job, entry, image=image, log_format=log_format),
    }
    # The deadline is the other manager's alone, so that it can be taken away again.
    if spec.queue_name:
        metadata["labels"][names.LABEL_QUEUE] = spec.queue_name
    else:
        job_spec["suspend"] = bool(spec.suspend)
    if spec.num_nodes > 1:
        job_spec |= {
            "completionMode": "Indexed",
            "completions": spec.num_nodes,
            "parallelism": spec.num_nodes,
        }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job_spec}


def build_job_lifecycle(job: FineTuneJob) -> Manifest:
    """Return the part of the Job that may change while it runs."""
    spec: Manifest = {}
    if job.spec.active_deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = job.spec.active_deadline_seconds
    if not job.spec.queue_name:
        spec["suspend"] = bool(job.spec.suspend)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.metadata.name, "namespace": job.metadata.namespace},
        "spec": spec,
    }


def build_adapter(job: FineTuneJob, digest: str, *, replaces: Adapter | None) -> Manifest:
    """Return the Adapter that a finished job publishes; it outlives the job, so has no owner.

    What the job says nothing about stays as somebody has set it on the Adapter since.
    """
    template, unsaid = job.spec.output.adapter, AdapterTemplate()
    kept = unsaid if replaces is None else replaces.spec
    metadata: Manifest = {
        "name": adapter_name(job),
        "namespace": job.metadata.namespace,
        "labels": {
            **template.labels,
            names.LABEL_PART_OF: "loraland",
            names.LABEL_JOB: job.metadata.name,
            names.LABEL_JOB_UID: job.metadata.uid,
        },
        "annotations": {
            names.ANNOTATION_JOB_CREATED: job.metadata.creation_timestamp,
            names.ANNOTATION_DIGEST: digest,
        },
    }
    if replaces is not None:
        # Whoever changes it between our look and our write wins; we look again.
        metadata["resourceVersion"] = replaces.metadata.resource_version
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.ADAPTER,
        "metadata": metadata,
        "spec": {
            "source": {"artifact": {"digest": digest}},
            "baseModel": job.spec.base_model,
            "pinned": template.pinned or kept.pinned,
            "deletionPolicy": kept.deletion_policy
            if template.deletion_policy == unsaid.deletion_policy
            else template.deletion_policy,
        },
    }


def artifact_prefix(adapter: Adapter, digest: str) -> str:
    """Return where an Adapter's files lie: always below its own namespace."""
    artifact = adapter.spec.source.artifact
    name = (artifact.name if artifact else None) or adapter.metadata.name
    return artifacts.adapter_prefix(adapter.metadata.namespace, name, digest)


def secrets_of(job: FineTuneJob) -> dict[str, SecretRef]:
    """Return the Secrets that the job's pods need, by field."""
    found = {
        "spec.output.credentialsSecretRef": job.spec.output.credentials_secret_ref,
        "spec.dataset.credentialsSecretRef": job.spec.dataset.credentials_secret_ref,
    }
    return {field: ref for field, ref in found.items() if ref is not None}


def _child_metadata(job: FineTuneJob, name: str) -> Manifest:
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": trainer_pod.labels(job),
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.FINE_TUNE_JOB,
                "name": job.metadata.name,
                "uid": job.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def failure_policy() -> Manifest:
    """Reserved exit codes end the Job at once; disruptions do not count as failures."""
    return {
        "rules": [
            {
                "action": "FailJob",
                "onExitCodes": {
                    "containerName": trainer_pod.CONTAINER,
                    "operator": "In",
                    "values": [int(code) for code in jobspec.NOT_RETRIED],
                },
            },
            {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
        ]
    }
