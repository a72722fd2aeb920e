"""The embedded API through the real kubectl."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import api_servers
import pytest
import servers

Kubectl = Callable[..., subprocess.CompletedProcess[str]]
TIMEOUT_S = 30

DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.dev"},
    "spec": {
        "group": "example.dev",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "string", "jsonPath": ".spec.size"}
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "description": "What it should be.",
                                "required": ["size"],
                                "properties": {"size": {"type": "string"}},
                                "x-kubernetes-validations": [
                                    {
                                        "rule": "self.size == oldSelf.size",
                                        "message": "size is immutable",
                                    }
                                ],
                            },
                            "status": {
                                "type": "object",
                                "x-kubernetes-preserve-unknown-fields": True,
                            },
                        },
                    }
                },
            }
        ],
    },
}
WIDGET = {
    "apiVersion": "example.dev/v1",
    "kind": "Widget",
    "metadata": {"name": "w"},
    "spec": {"size": "small"},
}


def _runner(kubeconfig: Path, home: Path) -> Kubectl:
    def run(
        *arguments: str, stdin: object = None, fails: bool = False
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [Path(sys.executable).with_name("kubectl"), *arguments],
            input=json.dumps(stdin) if stdin is not None else None,
            env={"KUBECONFIG": str(kubeconfig), "HOME": str(home), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def kubectl(api_server: Path, tmp_path: Path) -> Kubectl:
    return _runner(api_server, tmp_path)


@pytest.fixture
def widgets(kubectl: Kubectl) -> Kubectl:
    """A server that knows widgets."""
    kubectl("apply", "-f", "-", stdin=DEFINITION)
    kubectl("wait", "--for=condition=Established", "crd/widgets.example.dev", "--timeout=10s")
    return kubectl


def test_custom_resource_is_applied_shown_and_deleted(widgets: Kubectl) -> None:
    """The everyday commands work on a kind that was defined a moment ago."""
    widgets("apply", "-f", "-", stdin=WIDGET)
    table = widgets("get", "wd").stdout.split()
    size = widgets("get", "wd", "w", "-o", "jsonpath={.spec.size}").stdout
    explained = widgets("explain", "widget.spec").stdout
    widgets("delete", "wd", "w")

    assert table == ["NAME", "SIZE", "w", "small"]
    assert size == "small"
    assert "What it should be." in explained
    assert "NotFound" in widgets("get", "wd", "w", fails=True).stderr


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"colour": "red"}, 'strict decoding error: unknown field "spec.colour"'),
        ({"size": 1}, "spec.size in body must be of type string"),
        ({"size": "large"}, "spec: Invalid value: size is immutable"),
    ],
    ids=["unknown field", "wrong type", "immutable"],
)
def test_bad_object_is_refused(widgets: Kubectl, change: dict[str, object], expected: str) -> None:
    """The message names the field."""
    widgets("apply", "-f", "-", stdin=WIDGET)
    bad = {**WIDGET, "spec": {**WIDGET["spec"], **change}}  # type: ignore[dict-item]

    assert expected in widgets("apply", "-f", "-", stdin=bad, fails=True).stderr


def test_server_side_apply_guards_ownership(widgets: Kubectl) -> None:
    """Two managers cannot want different things without force."""
    labelled = {**WIDGET, "metadata": {"name": "w", "labels": {"a": "1"}}}
    other = {**WIDGET, "metadata": {"name": "w", "labels": {"a": "2"}}}
    apply = ("apply", "--server-side", "-f", "-")
    widgets(*apply, "--field-manager=one", stdin=labelled)

    refused = widgets(*apply, "--field-manager=two", stdin=other, fails=True)
    forced = widgets(*apply, "--field-manager=two", "--force-conflicts", stdin=other)

    assert 'conflict with "one": .metadata.labels.a' in refused.stderr
    assert "serverside-applied" in forced.stdout


def test_client_side_apply_moves_to_the_server_side(widgets: Kubectl) -> None:
    """Kubectl hands its own fields over, so that its next apply can remove them."""
    labelled = {**WIDGET, "metadata": {"name": "w", "labels": {"a": "1"}}}
    widgets("apply", "-f", "-", stdin=labelled)

    widgets("apply", "--server-side", "-f", "-", stdin=WIDGET)

    found = json.loads(widgets("get", "wd", "w", "-o", "json", "--show-managed-fields").stdout)
    operations = {entry["operation"] for entry in found["metadata"]["managedFields"]}
    assert "labels" not in found["metadata"]
    assert operations == {"Apply"}


def test_typed_commands_that_send_protobuf_work(kubectl: Kubectl) -> None:
    """`kubectl create` speaks protobuf for built-in kinds."""
    kubectl("create", "namespace", "lab")
    kubectl("create", "-n", "lab", "configmap", "c", "--from-literal=a=1")
    kubectl("create", "-n", "lab", "secret", "generic", "s", "--from-literal=k=v")
    kubectl("create", "-n", "lab", "deployment", "d", "--image=img", "--replicas=2", "--port=80")
    kubectl("create", "-n", "lab", "job", "j", "--image=img", "--", "sleep", "1")

    data = kubectl("get", "-n", "lab", "secret", "s", "-o", "jsonpath={.data.k}").stdout
    deployment = json.loads(kubectl("get", "-n", "lab", "deploy", "d", "-o", "json").stdout)

    assert data == "dg=="
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["template"]["spec"]["containers"][0]["ports"] == [
        {"containerPort": 80, "protocol": "TCP"}
    ]


def test_service_account_may_do_what_its_role_says(
    kubectl: Kubectl, api_server: Path, tmp_path: Path
) -> None:
    """A minted token is accepted, and limited."""
    kubectl("create", "serviceaccount", "runner")
    kubectl("create", "role", "r", "--verb=get,list", "--resource=configmaps")
    kubectl("create", "rolebinding", "rb", "--role=r", "--serviceaccount=default:runner")
    token = kubectl("create", "token", "runner").stdout.strip()
    own = tmp_path / "runner.kubeconfig"
    own.write_text(api_server.read_text().replace(_token_of(api_server), token))
    runner = _runner(own, tmp_path)

    assert runner("get", "configmaps").returncode == 0
    refused = runner("get", "secrets", fails=True).stderr
    assert 'User "system:serviceaccount:default:runner" cannot list resource "secrets"' in refused
    assert runner("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").stdout == (
        "system:serviceaccount:default:runner"
    )


def _token_of(kubeconfig: Path) -> str:
    [line] = [line for line in kubeconfig.read_text().splitlines() if "token:" in line]
    return line.partition("token:")[2].strip()


def test_unknown_token_is_turned_away(api_server: Path, tmp_path: Path) -> None:
    """Without credentials there is no answer."""
    own = tmp_path / "stranger.kubeconfig"
    own.write_text(api_server.read_text().replace(_token_of(api_server), "wrong"))

    refused = _runner(own, tmp_path)("get", "ns", fails=True).stderr

    assert "You must be logged in to the server" in refused


def test_objects_survive_a_restart(tmp_path: Path) -> None:
    """State is in one directory; definitions are in force again at once."""
    state = tmp_path / "state"
    with api_servers.api_process(state) as kubeconfig:
        run = _runner(kubeconfig, tmp_path)
        run("apply", "-f", "-", stdin=DEFINITION)
        run("apply", "-f", "-", stdin=WIDGET)

    with api_servers.api_process(state) as kubeconfig:
        found = _runner(kubeconfig, tmp_path)("get", "wd", "-o", "name").stdout

    assert found == "widget.example.dev/w\n"


def test_server_stops_though_somebody_watches(tmp_path: Path) -> None:
    """It does not wait for the watch, which would go on for minutes, and the watch ends with it."""
    with api_servers.api_process(tmp_path / "state") as kubeconfig:
        command = [Path(sys.executable).with_name("kubectl"), "get", "ns", "--watch"]
        environment = {"KUBECONFIG": str(kubeconfig), "HOME": str(tmp_path)}
        watcher = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert watcher.stdout is not None
        watcher.stdout.readline()
    watcher.wait(timeout=60)
    watcher.stdout.close()

    assert watcher.returncode is not None


@pytest.mark.parametrize(
    ("port", "state", "expected"),
    [(None, "two", "port {port} on 127.0.0.1 is taken"), (0, "one", "another server uses")],
    ids=["port", "state directory"],
)
def test_what_is_taken_is_said_in_one_sentence(
    tmp_path: Path, port: int | None, state: str, expected: str
) -> None:
    """A second server in the way of a first ends with a sentence, not a traceback."""
    first = servers.free_port()
    asked = str(first if port is None else port)
    with api_servers.api_process(tmp_path / "one", port=first):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "loraland_local.api", "--port", asked),
                *("--state", str(tmp_path / state)),
            ],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    assert done.returncode == 1
    assert expected.format(port=first) in done.stderr
    assert "Traceback" not in done.stderr
