"""Where a pod's mounted files are.

In a container a volume appears at its mount path. On the laptop a pod is a plain process without a
mount namespace of its own: the kubelet lays the volumes out below ``LORALAND_ROOT`` instead.
"""

import os
from pathlib import Path

ROOT_VARIABLE = "LORALAND_ROOT"
TERMINATION_LOG_VARIABLE = "LORALAND_TERMINATION_LOG"
CACHE_VARIABLE = "LORALAND_CACHE_DIR"


def mounted(path: str) -> Path:
    """Return where the file at the mount path ``path`` lies for this process."""
    root = os.environ.get(ROOT_VARIABLE)
    if not root:
        return Path(path)
    below_root = Path(root) / path.lstrip("/")
    return below_root if below_root.exists() else Path(path)


def termination_log() -> Path:
    """Return the file whose content Kubernetes shows as the container's termination message."""
    return Path(os.environ.get(TERMINATION_LOG_VARIABLE, "/dev/termination-log"))


def cache_dir() -> Path:
    """Return where converted base models and downloaded artifacts are kept."""
    explicit = os.environ.get(CACHE_VARIABLE)
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "loraland"
