"""The kubeconfig that clients of this server use. Writes one file."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import yaml


def content(*, url: str, authority: bytes, token: str) -> dict[str, Any]:
    cluster = {
        "server": url,
        "certificate-authority-data": base64.b64encode(authority).decode(),
    }
    context = {"cluster": "loraland", "user": "loraland", "namespace": "default"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "loraland", "cluster": cluster}],
        "users": [{"name": "loraland", "user": {"token": token}}],
        "contexts": [{"name": "loraland", "context": context}],
        "current-context": "loraland",
    }


def write(path: Path, *, url: str, authority: bytes, token: str) -> None:
    """Write the file readable by its owner only, whole or not at all."""
    text = yaml.safe_dump(content(url=url, authority=authority, token=token), sort_keys=False)
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
