"""Whoever else has a part in a cluster, played by the test: it writes what they would write."""

import hashlib
import itertools
import time
from typing import Any

from kube_api import Api, Object, path_of
from loraland_core import artifacts, keys, names
from loraland_core.artifacts import File, Manifest, Result
from loraland_core.store import Store
from operator_objects import BASE, build_beat

_counter = itertools.count(1)


class PlayedParties:
    """Job controller, kubelet, trainer and replicas."""

    api: Api
    store: Store
    redis: Any
    pod_ip: str

    def start_pod(self, job: Object, *, name: str = "") -> str:
        """Play Job controller and kubelet: a pod of the Job runs."""
        name = name or f"{job['metadata']['name']}-{next(_counter)}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {
                    **job["spec"]["template"]["metadata"]["labels"],
                    "batch.kubernetes.io/job-name": job["metadata"]["name"],
                },
            },
            "spec": {"containers": [{"name": "trainer", "image": "loraland/trainer"}]},
        }
        self.api.call("POST", path_of("pods"), pod)
        status = {"phase": "Running", "podIP": self.pod_ip, "podIPs": [{"ip": self.pod_ip}]}
        self.api.patch(path_of("pods", name, sub="status"), {"status": status})
        started = {"active": 1, "startTime": _now()}
        self.api.patch(path_of("jobs", job["metadata"]["name"], sub="status"), {"status": started})
        return name

    def complete(self, job: Object) -> None:
        """Play the Job controller after a pod that ended well."""
        conditions = [_condition("SuccessCriteriaMet"), _condition("Complete")]
        status = {
            "active": None,
            "succeeded": 1,
            "startTime": job.get("status", {}).get("startTime") or _now(),
            "completionTime": _now(),
            "conditions": conditions,
        }
        self.api.patch(path_of("jobs", job["metadata"]["name"], sub="status"), {"status": status})

    def fail(self, job: Object, pod: str, exit_code: int, message: str) -> None:
        """Play kubelet and Job controller after a pod that failed for good."""
        ended = {
            "exitCode": exit_code,
            "message": message,
            "reason": "Error",
            "startedAt": _now(),
            "finishedAt": _now(),
        }
        container = {
            "name": "trainer",
            "image": "loraland/trainer",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        self.api.patch(
            path_of("pods", pod, sub="status"),
            {"status": {"phase": "Failed", "containerStatuses": [container]}},
        )
        conditions = [
            _condition("FailureTarget", "PodFailurePolicy"),
            _condition("Failed", "PodFailurePolicy"),
        ]
        status = {"active": None, "failed": 1, "startTime": _now(), "conditions": conditions}
        self.api.patch(path_of("jobs", job["metadata"]["name"], sub="status"), {"status": status})

    def upload_artifact(self, name: str, **changes: Any) -> Manifest:
        """Play the trainer: an adapter's files, manifest last."""
        contents = {path: f"{name} {path}".encode() for path in artifacts.SERVED_FILES}
        files = [
            File(path=p, size_bytes=len(c), sha256=hashlib.sha256(c).hexdigest())
            for p, c in contents.items()
        ]
        manifest = Manifest.model_validate(
            {
                "baseModel": BASE,
                "resolvedRevision": "rev-1",
                "trainingPrecision": "nf4",
                "rank": 8,
                "alpha": 16.0,
                "targetModules": ["q_proj"],
                "dtype": "float32",
                "files": [f.model_dump(by_alias=True) for f in files],
                "createdAt": "2026-01-01T00:00:00Z",
            }
            | changes
        )
        prefix = artifacts.adapter_prefix("default", name, manifest.digest)
        for path, content in contents.items():
            self.store.write(prefix + path, content)
        self.store.write(prefix + artifacts.MANIFEST_FILE, manifest.to_json())
        return manifest

    def write_result(
        self, job: Object, name: str, *, gate_passed: bool = True, **changes: Any
    ) -> Result:
        """Play the trainer to its end: artifact and result."""
        manifest = self.upload_artifact(name, **changes)
        uid = job["metadata"]["labels"][names.LABEL_JOB_UID]
        result = Result.model_validate(
            {
                "jobUid": uid,
                "uri": self.store.uri(artifacts.adapter_prefix("default", name, manifest.digest)),
                "digest": manifest.digest,
                "sizeBytes": manifest.size_bytes,
                "metrics": [{"name": "ExactMatch", "base": 0.0, "tuned": 0.75}],
                "numEvaluated": 64,
                "gatePassed": gate_passed,
                "createdAt": "2026-01-01T00:00:00Z",
                "totalSteps": 60,
            }
        )
        self.store.write(artifacts.result_key(uid), result.to_json())
        return result

    def record(self, adapter_id: str) -> keys.AdapterRecord | None:
        data = self.redis.hget(keys.adapters(BASE), adapter_id)
        return keys.parse_adapter_record(data) if data else None

    def beat(self, replica: str = "replica-0", *, ttl_s: int = 60, **changes: Any) -> None:
        """Play a replica that has applied everything there is."""
        revisions = [
            keys.parse_adapter_record(r).revision for r in self.redis.hvals(keys.adapters(BASE))
        ]
        beat = build_beat(replica, applied=max(revisions, default=0), **changes)
        self.redis.zadd(keys.replicas(BASE), {replica: time.time()})
        self.redis.set(keys.beat(BASE, replica), beat.to_json(), ex=ttl_s)


def _condition(type_: str, reason: str = "") -> Object:
    return {
        "type": type_,
        "status": "True",
        "reason": reason,
        "message": "",
        "lastProbeTime": _now(),
        "lastTransitionTime": _now(),
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
