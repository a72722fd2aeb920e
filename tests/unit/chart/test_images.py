"""Images and workflows cannot be built here; what can be read of them is held to the rest."""

import importlib.util
import re
import shlex
from pathlib import Path

import charts
import pytest
import yaml

ROOT = charts.CHART.parents[1]
DOCKERFILE = (ROOT / "images" / "Dockerfile").read_text()
BAKE = (ROOT / "images" / "docker-bake.hcl").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
PARTS = ("operator", "inference", "trainer")


def stage(name: str) -> str:
    """Return a stage's instructions, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", joined, re.M | re.S)
    assert found is not None, f"no stage {name}"
    return found[1]


def test_every_image_starts_its_program_as_nobody() -> None:
    """The entrypoint is a module of ours, and the user is the one of the chart's values."""
    user = yaml.safe_load((charts.CHART / "values.yaml").read_text())["podSecurity"]["runAsUser"]

    assert f"USER {user}:{user}" in stage("run")
    for part in PARTS:
        module = re.search(r'ENTRYPOINT \["python", "-m", "(\w+)"\]', stage(part))
        assert module is not None
        assert importlib.util.find_spec(module[1]) is not None


def test_bases_are_arguments_and_stages() -> None:
    """No base is written into the Dockerfile: bases.env pins them all."""
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.M))
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)) - stages

    assert bases == {"${PYTHON_IMAGE}"}
    assert re.search(r"^PYTHON_IMAGE=\S+", (ROOT / "images" / "bases.env").read_text(), re.M)
    assert ":latest" not in DOCKERFILE + BAKE


def test_what_is_copied_exists() -> None:
    """A path that moved breaks a build at its very end."""
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M):
        for source in shlex.split(line)[:-1]:
            assert (ROOT / source).exists(), source


def test_bake_builds_each_image_that_the_chart_names() -> None:
    """Targets are stages, and tags are repositories of the values."""
    targets = re.findall(r'target\s+= "(\w+)"', BAKE)
    images = yaml.safe_load((charts.CHART / "values.yaml").read_text())["images"]

    assert set(targets) == set(PARTS)
    for part in PARTS:
        assert f'"${{REGISTRY}}/{part}:${{VERSION}}"' in BAKE
        assert images[part]["repository"] == f"loraland/{part}"


def test_images_for_gpus_carry_a_compiler() -> None:
    """Triton builds the launcher of its first kernel with one; without it no adapter is applied."""
    targets = re.findall(r'^target "\w+-cuda" {\n(.*?)^}', BAKE, re.M | re.S)

    assert len(targets) == 2
    assert all("COMPILER = CUDA_COMPILER" in target for target in targets)
    assert re.search(r'^variable "CUDA_COMPILER" { default = "gcc .+" }$', BAKE, re.M)
    assert "apt-get install -y --no-install-recommends ${COMPILER}" in stage("run")


def test_exposed_ports_are_the_charts() -> None:
    """What an image says it listens on is what the pods say."""
    rendered = charts.render(charts.NEEDED)

    for part in ("operator", "inference"):
        ports = {
            int(p) for p in re.findall(r"\d+", stage(part).partition("EXPOSE")[2].split("\n")[0])
        }
        containers = [
            container
            for obj in rendered
            if obj["kind"] == "Deployment" and part in obj["metadata"]["name"]
            for container in obj["spec"]["template"]["spec"]["containers"]
        ]
        assert ports == {port["containerPort"] for c in containers for port in c["ports"]}


def test_versions_agree() -> None:
    """Wheel, chart and images of a release have one version."""
    chart = yaml.safe_load((charts.CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)

    assert version is not None
    assert version[1] == str(chart["version"]) == str(chart["appVersion"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_few_rights_and_pinned_actions(path: Path) -> None:
    """No job has more rights than it says, and no action floats with somebody's main branch."""
    text = path.read_text()
    workflow = yaml.safe_load(text)

    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert "uses" not in step or re.search(r"@(v\d|release/v\d|[0-9a-f]{40})", step["uses"])
            # An expression in a script is somebody's text run as a command.
            assert "${{" not in step.get("run", "")
    for script in re.findall(r"(?:scripts|images|\.ci)/[\w./-]+", text):
        assert (ROOT / script).exists(), script
