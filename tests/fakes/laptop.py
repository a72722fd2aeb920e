"""The laptop's control plane and kubelet as real processes, driven with the real kubectl."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

KUBECTL = pathlib.Path(sys.executable).with_name("kubectl")
IMAGES = {"images": {"busybox": {"entrypoint": []}, "python": {"entrypoint": ["python"]}}}


@dataclasses.dataclass
class Laptop:
    """A running stack; ``directory`` holds all its state."""

    directory: pathlib.Path
    processes: dict[str, "subprocess.Popen[bytes]"] = dataclasses.field(default_factory=dict)

    @property
    def kubeconfig(self) -> pathlib.Path:
        return self.directory / "api" / "kubeconfig"

    def start(self, part: str, *arguments: str) -> "subprocess.Popen[bytes]":
        log = (self.directory / f"{part}.log").open("ab")
        with log:
            self.processes[part] = subprocess.Popen(
                [sys.executable, "-m", f"loraland_local.{part}", *arguments],
                stdout=log,
                stderr=log,
                env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            )
        return self.processes[part]

    def start_api(self, port: int = 0) -> None:
        self.start("api", "--state", str(self.directory / "api"), "--port", str(port))
        self.wait(lambda: "ready" in self.log_of("api"), "the API is ready")

    def start_controllers(self) -> None:
        self.start("controllers", "--job-backoff-s", "0.5")
        self.wait(lambda: self.get("serviceaccount", "default"), "the controllers are at work")

    def start_kubelet(self, *arguments: str) -> None:
        images = self.directory / "images.json"
        images.write_text(json.dumps(IMAGES))
        block = hashlib.sha256(str(self.directory).encode()).digest()[0] % 200 + 20
        state = ["--state", str(self.directory / "kubelet"), "--images", str(images)]
        node = ["--node-name", "laptop", "--pod-cidr", f"127.{block}.0.0/16"]
        self.start("kubelet", *state, *node, "--crash-backoff-s", "0.5", *arguments)
        self.wait(lambda: "is ready" in self.log_of("kubelet"), "the kubelet is ready")

    def stop(self, part: str) -> None:
        process = self.processes.pop(part)
        process.terminate()
        process.wait(timeout=15)

    def kill(self, part: str) -> None:
        """End a part without giving it a chance to clean up."""
        process = self.processes.pop(part)
        process.kill()
        process.wait(timeout=15)

    def log_of(self, part: str) -> str:
        path = self.directory / f"{part}.log"
        return path.read_text() if path.exists() else ""

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl; return what it prints."""
        done = subprocess.run(
            [str(KUBECTL), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *documents: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object or list as kubectl sees it; empty when there is none."""
        text = self.kubectl("get", *arguments, "-o", "json", "--ignore-not-found")
        return dict(json.loads(text)) if text.strip() else {}

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        return list(self.get(*arguments).get("items", []))

    def wait(self, condition: Callable[[], Any], what: str, limit_s: float = 20) -> Any:
        """Return the first truthy value of the condition."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.05)
        logs = "\n".join(f"{part}: {self.log_of(part)[-1500:]}" for part in self.processes)
        raise AssertionError(f"after {limit_s} s still not: {what}\n{logs}")

    def strays(self) -> list[str]:
        """Return the command lines of all processes that run for this stack's pods."""
        return [
            _command_of(process)
            for process in psutil.process_iter()
            if str(self.directory / "kubelet") in _environment_of(process).get("LORALAND_ROOT", "")
        ]


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return f"process {process.pid}, which ends"


def _environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except psutil.Error:
        return {}


@contextlib.contextmanager
def running(directory: pathlib.Path, *, with_kubelet: bool = True) -> Iterator[Laptop]:
    """Run API, controllers and, unless told otherwise, the kubelet."""
    laptop = Laptop(directory)
    try:
        laptop.start_api()
        laptop.start_controllers()
        if with_kubelet:
            laptop.start_kubelet()
        yield laptop
    finally:
        for part in ("kubelet", "controllers", "api"):
            if part in laptop.processes:
                laptop.stop(part)
