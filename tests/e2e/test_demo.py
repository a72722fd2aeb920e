"""The demo: it succeeds, it can fail, and it leaves nothing behind."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from land import Land, small_job

Moment = Callable[[Land], bool]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Land]:
    """A demo's directory; whatever still runs there is ended afterwards."""
    found = Land(tmp_path / "demo")
    yield found
    found.loraland("down")


def write_job(folder: Path, job: dict[str, Any]) -> str:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return str(path)


def test_demo_trains_compares_and_tears_down(stage: Land, tmp_path: Path) -> None:
    """The quickstart's adapter beats the base model by far, and no process is left."""
    report = tmp_path / "demo.json"
    result = stage.loraland(
        "demo", "--state", str(stage.place.state), "--json", str(report), timeout_s=900
    )
    assert result.returncode == 0, result.stdout + result.stderr
    numbers = json.loads(report.read_text())

    assert (numbers["scores"]["base"] < 0.3, numbers["scores"]["tuned"] > 0.6) == (True, True)
    assert (numbers["is_better"], len(numbers["answers"]), stage.num_processes()) == (True, 8, 0)


def test_demo_fails_when_the_adapter_is_no_better(stage: Land, tmp_path: Path) -> None:
    """A job that learns next to nothing makes the demo fail with a sentence."""
    job = small_job("idle")
    job["spec"]["training"].update(maxSteps=1, learningRate="0.000000001")
    result = stage.loraland(
        "demo", "--state", str(stage.place.state), "--job", write_job(tmp_path, job), timeout_s=900
    )

    assert (result.returncode, "no better" in result.stderr) == (1, True), result.stderr
    assert stage.num_processes() == 0


def test_demo_names_the_failed_station_and_shows_the_pods_log(stage: Land, tmp_path: Path) -> None:
    """A job that fails ends the demo with its reason and the end of its log."""
    job = small_job("broken")
    job["spec"]["dataset"]["prompt"] = "{absent}\n"
    result = stage.loraland(
        "demo", "--state", str(stage.place.state), "--job", write_job(tmp_path, job), timeout_s=900
    )

    assert (result.returncode, "station job failed" in result.stderr) == (1, True), result.stderr
    assert ("absent" in result.stderr, "loraland_trainer" in result.stderr) == (True, True)
    assert stage.num_processes() == 0


def is_starting(stage: Land) -> bool:
    return stage.num_processes() >= 3


def is_training(stage: Land) -> bool:
    found = stage.kubectl("get", "ftj", "-o", "jsonpath={.items[*].status.progress.phase}")
    return found.stdout.strip() in ("loading-model", "training")


def is_asking(stage: Land) -> bool:
    log = stage.output.read_text() if stage.output.exists() else ""
    return "5  The same held-out questions" in log


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(is_starting, id="while-starting"),
        pytest.param(is_training, id="while-training"),
        pytest.param(is_asking, id="while-asking"),
    ],
)
def test_interrupted_demo_leaves_no_process(stage: Land, tmp_path: Path, moment: Moment) -> None:
    """Ctrl-C at any moment ends the demo and everything that it started."""
    job = write_job(tmp_path, small_job("interrupted"))
    process = stage.start("demo", "--state", str(stage.place.state), "--job", job)
    stage.wait_until(lambda: moment(stage) or process.poll() is not None, timeout_s=300)
    process.send_signal(signal.SIGINT)
    process.wait(90)

    assert (process.returncode, stage.num_processes()) == (130, 0), stage.output.read_text()


def test_killed_demo_leaves_no_process(stage: Land) -> None:
    """Even SIGKILL of the demo ends its stack: the supervisor follows its pipe."""
    process = stage.start("demo", "--state", str(stage.place.state))
    stage.wait_until(lambda: stage.num_processes() >= 4, timeout_s=60)
    process.kill()
    process.wait(10)
    stage.wait_until(lambda: stage.num_processes() == 0, timeout_s=60)

    assert process.returncode == -signal.SIGKILL
