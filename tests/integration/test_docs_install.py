"""The page on installing does what it says: its shell blocks, one after the other, in one shell."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import laptop as laptops
import pytest
import shell_blocks
from laptop import Laptop

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "install.md").read_text()
STAND_IN = ROOT / "tests" / "fakes" / "helm_stand_in.py"
LIMIT_S = 110
# Nothing trains here, so that the page's backup would find nothing.
ADAPTER = """kubectl apply --filename - <<'END'
apiVersion: loraland.dev/v1alpha1
kind: Adapter
metadata: {name: support-desk, namespace: default}
spec:
  baseModel: smollm2-135m-instruct
  source: {artifact: {digest: %s}}
END
""" % ("ab" * 32)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Laptop]:
    with laptops.running(tmp_path, with_kubelet=False) as running:
        yield running


def environment(folder: Path, kubeconfig: Path) -> dict[str, str]:
    """Return one in which kubectl and helm are this environment's."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(laptops.KUBECTL)
    helm = programs / "helm"
    helm.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
    helm.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "KUBECONFIG": str(kubeconfig),
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


def typed(block: shell_blocks.Block) -> str:
    before = ADAPTER if "backup.yaml" in block.text else ""
    return f"# line {block.line}\n{before}{block.text}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the page makes passwords with openssl")
def test_blocks_of_the_page_run(cluster: Laptop, tmp_path: Path) -> None:
    """Whoever types what stands there gets no error; what needs a cluster with nodes is counted."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("helm", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    here = [block for block in shell_blocks.read(PAGE) if not block.is_cloud]
    script = "\n".join(["set -euo pipefail", *map(typed, here)])

    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment(tmp_path, cluster.kubeconfig),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "3 deployed" in done.stdout
    assert "adapter.loraland.dev/support-desk serverside-applied" in done.stdout
    num_cloud = len(shell_blocks.read(PAGE)) - len(here)
    print(f"docs/install.md: {len(here)} blocks ran, {num_cloud} need a cluster")  # noqa: T201


def test_blocks_that_need_a_cluster_are_well_formed() -> None:
    """They cannot run here, but bash can read them."""
    cloud = [block for block in shell_blocks.read(PAGE) if block.is_cloud]

    for block in cloud:
        done = subprocess.run(
            ["bash", "-n"], input=block.text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"line {block.line}: {done.stderr}"
    assert cloud
