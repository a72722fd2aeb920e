"""One job on two pods that train together."""

import json

from land import Land, small_job


def test_two_pods_make_one_adapter(land: Land) -> None:
    """Two pods of an Indexed Job find each other, share the steps, and publish once."""
    applied = land.apply(small_job("pair", numNodes=2))
    assert applied.returncode == 0, applied.stderr
    land.wait("finetunejob", "pair", "Succeeded")
    land.wait("adapter", "pair", "Ready", timeout_s=120)
    listed = land.kubectl("get", "pods", "-l", "loraland.dev/fine-tune-job=pair", "-o", "json")
    pods = json.loads(listed.stdout)["items"]

    indexes = {
        p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] for p in pods
    }
    assert {p["status"]["phase"] for p in pods} == {"Succeeded"}
    assert indexes == {"0", "1"}
