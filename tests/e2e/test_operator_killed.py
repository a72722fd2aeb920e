"""The operator killed in the middle of a job."""

import psutil
from land import Land, condition, small_job
from loraland_local import processes


def operator_processes(land: Land) -> list[psutil.Process]:
    return [
        process
        for process in processes.marked(land.place.state)
        if "loraland_operator" in process.cmdline()
    ]


def num_objects(land: Land, kind: str, selector: str) -> int:
    return len(land.kubectl("get", kind, "-l", selector, "-o", "name").stdout.split())


def test_killed_operator_neither_repeats_nor_loses_a_job(land: Land) -> None:
    """After SIGKILL and a restart there is one Job, one pod, one Adapter, and the job succeeds."""
    applied = land.apply(small_job("orphaned"))
    assert applied.returncode == 0, applied.stderr
    land.wait("finetunejob", "orphaned", "Running", timeout_s=60)
    victims = operator_processes(land)
    for process in victims:
        process.kill()
    land.wait("finetunejob", "orphaned", "Succeeded")
    land.wait("adapter", "orphaned", "Ready", timeout_s=120)
    selector = "loraland.dev/fine-tune-job=orphaned"
    counts = [num_objects(land, kind, selector) for kind in ("jobs", "pods", "adapters")]
    job = land.get("finetunejob", "orphaned")

    assert (len(victims) > 0, counts) == (True, [1, 1, 1])
    assert (job["status"]["attempts"], condition(job, "AdapterPublished")["status"]) == (1, "True")
