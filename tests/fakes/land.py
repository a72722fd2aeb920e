"""A laptop stack as a person drives it, by command and by kubectl, and jobs that are quick to run."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from loraland_local import kubectl, layout, processes

ROOT = Path(__file__).parents[2]
LORALAND = str(Path(sys.executable).with_name("loraland"))
QUICKSTART = ROOT / "examples" / "quickstart" / "job.yaml"


class Land:
    """One stack's directory, and how to talk to what runs there."""

    def __init__(self, state: Path) -> None:
        self.place = layout.locate(state)
        self.kubeconfig = self.place.kubeconfig

    def loraland(
        self, *arguments: str, timeout_s: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "LORALAND_STATE": str(self.place.state)}
        return subprocess.run(
            [LORALAND, *arguments],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start the command in the background; what it prints goes to ``output``."""
        self.place.state.parent.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "LORALAND_STATE": str(self.place.state), "PYTHONUNBUFFERED": "1"}
        with self.output.open("wb") as output:
            return subprocess.Popen(
                [LORALAND, *arguments],
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> Path:
        return self.place.state.with_suffix(".output")

    def kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [kubectl.path(), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def apply(self, manifest: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(manifest))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        result = self.kubectl("get", kind, name, "-o", "json")
        assert result.returncode == 0, result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def wait(self, kind: str, name: str, condition: str, *, timeout_s: int = 600) -> None:
        """Wait with kubectl for ``Type`` or ``Type=False``."""
        subprocess.run(
            [
                *(kubectl.path(), "--kubeconfig", str(self.kubeconfig), "wait", kind, name),
                *(f"--for=condition={condition}", f"--timeout={timeout_s}s"),
            ],
            check=True,
            capture_output=True,
            timeout=timeout_s + 30,
        )

    def wait_until(self, happened: Callable[[], bool], *, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not happened():
            assert time.monotonic() < deadline, f"did not happen within {timeout_s:.0f} s"
            time.sleep(0.3)

    @property
    def grpc_address(self) -> str:
        record = self.place.read_record()
        assert record is not None
        return next(s.address for s in record.stations if s.name == "inference")

    @property
    def token(self) -> str:
        return self.place.token.read_text().strip()

    def num_processes(self) -> int:
        return len(processes.marked(self.place.state))


def condition(resource: dict[str, Any], kind: str) -> dict[str, Any]:
    found = [c for c in resource.get("status", {}).get("conditions", []) if c["type"] == kind]
    return dict(found[0]) if found else {}


def small_job(name: str, **spec: Any) -> dict[str, Any]:
    """Return the quickstart's job, cut down to some seconds of training."""
    job: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())
    job["metadata"] = {"name": name}
    job["spec"]["lora"] = {"rank": 4, "alpha": 8, "targetModules": ["q_proj", "v_proj"]}
    job["spec"]["training"].update(maxSteps=3, batchSize=4)
    job["spec"]["evaluation"] = {
        "metrics": ["JsonFieldMatch"],
        "maxSamples": 4,
        "maxNewTokens": 16,
    }
    job["spec"].update(spec)
    return job
