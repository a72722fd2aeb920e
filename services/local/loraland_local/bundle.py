"""Files that travel with the program: the operator's rules, the quickstart.

In a checkout they lie in the repository; in a wheel they lie beside this module.
"""

from pathlib import Path
from typing import Any

import yaml
from loraland_core.errors import NotFound

OPERATOR_RULES = "helm/loraland/files/rbac/operator.yaml"
LEASE_RULES = "helm/loraland/files/rbac/operator-lease.yaml"
QUICKSTART = "examples/quickstart"


def path(name: str) -> Path:
    """Return where the file or folder lies; raise ``NotFound`` for a broken installation."""
    here = Path(__file__).parent
    for candidate in (here / "bundle" / name, here.parents[2] / name):
        if candidate.exists():
            return candidate
    raise NotFound(f"{name} is missing from this installation of loraland; install it again")


def rules(name: str) -> list[dict[str, Any]]:
    """Return the rules of a file that the operator's service account is granted."""
    found: list[dict[str, Any]] = []
    for document in yaml.safe_load_all(path(name).read_text()):
        if document and document.get("kind") in {"ClusterRole", "Role"}:
            found += document.get("rules") or []
    return found
