"""Pods as processes: the kubelet and the controllers against the embedded API."""

import ssl
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import laptop as laptops
import pytest
from laptop import Laptop

Object = dict[str, Any]

WAIT = "sleep 60 & wait"
"""Lets the shell take a signal at once. (Between two commands dash may lose one.)"""


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    with laptops.running(tmp_path_factory.mktemp("laptop")) as running:
        yield running


def pod(name: str, script: str, *, policy: str = "Never", **fields: Any) -> Object:
    """Build a pod of one container that runs a shell script."""
    container_fields = fields.pop("container", {})
    container = {
        "name": "c",
        "image": "registry.example/library/busybox:1.37",
        "command": ["sh", "-c", script],
        **container_fields,
    }
    spec = {"restartPolicy": policy, "containers": [container], **fields}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def python_pod(name: str, script: str, **fields: Any) -> Object:
    """Build a pod whose image brings the entrypoint."""
    built = pod(name, "", **fields)
    built["spec"]["containers"][0].update(image="python", command=None, args=["-c", script])
    return built


def wait_phase(laptop: Laptop, name: str, *phases: str) -> Object:
    def look() -> Object | None:
        found = laptop.get("pod", name)
        return found if found.get("status", {}).get("phase") in phases else None

    found: Object = laptop.wait(look, f"pod {name} is {phases}")
    return found


def state(found: Object, position: int = 0) -> Object:
    states: Object = found["status"]["containerStatuses"][position]["state"]
    return states


def reasons(laptop: Laptop, name: str) -> list[str]:
    selector = f"involvedObject.name={name}"
    return [event["reason"] for event in laptop.items("events", "--field-selector", selector)]


def test_pod_succeeds_with_message_logs_and_events(laptop: Laptop) -> None:
    """A container's exit code, last word, output and life can be seen with kubectl."""
    script = 'echo out; echo err >&2; printf "the result" > $LORALAND_TERMINATION_LOG'
    laptop.apply(pod("good", script))
    found = wait_phase(laptop, "good", "Succeeded")

    terminated = state(found)["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (0, "Completed")
    assert terminated["message"] == "the result"
    assert sorted(laptop.kubectl("logs", "good").splitlines()) == ["err", "out"]
    wanted = {"Scheduled", "Pulled", "Created", "Started"}
    laptop.wait(lambda: wanted <= set(reasons(laptop, "good")), "all events are there")


@pytest.mark.parametrize(
    ("name", "script", "fields", "expected"),
    [
        pytest.param("exits", "exit 42", {}, (42, "Error", ""), id="exit-code"),
        pytest.param("killed", "kill -9 $$$$", {}, (137, "Error", ""), id="signal"),
        pytest.param(
            "falls-back",
            "echo why; exit 1",
            {"container": {"terminationMessagePolicy": "FallbackToLogsOnError"}},
            (1, "Error", "why\n"),
            id="message-from-the-log",
        ),
        pytest.param(
            "missing",
            "",
            {"container": {"command": ["no-such-command"]}},
            (128, "StartError", "exec: 'no-such-command': No such file or directory"),
            id="no-such-command",
        ),
    ],
)
def test_failed_pod_tells_how(
    laptop: Laptop, name: str, script: str, fields: Object, expected: tuple[int, str, str]
) -> None:
    """Exit code, reason and message say how a container failed."""
    laptop.apply(pod(name, script, **fields))
    found = wait_phase(laptop, name, "Failed")

    terminated = state(found)["terminated"]
    message = terminated.get("message", "")
    assert (terminated["exitCode"], terminated["reason"], message) == expected


def test_unknown_image_waits_and_lists_the_known_ones(laptop: Laptop) -> None:
    """A pod whose image this machine cannot stand in for says which images there are."""
    built = pod("unknown-image", "true")
    built["spec"]["containers"][0]["image"] = "example/nothing:1"
    laptop.apply(built)

    def look() -> str:
        found = laptop.get("pod", "unknown-image")
        statuses = found.get("status", {}).get("containerStatuses", [{}])
        waiting = statuses[0].get("state", {}).get("waiting", {})
        return waiting.get("message", "") if "Image" in waiting.get("reason", "") else ""

    message = laptop.wait(look, "the image is refused")
    assert "example/nothing:1" in message
    assert "known: busybox, python" in message
    laptop.kubectl("delete", "pod", "unknown-image", "--now")


def test_environment_comes_from_everywhere(laptop: Laptop) -> None:
    """Plain values, fields, resources, ConfigMaps and Secrets become variables; others do not."""
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}}
    env = [
        {"name": "PLAIN", "value": "p"},
        {"name": "COMBINED", "value": "$(PLAIN)-$(FROM_A)-$$(PLAIN)-$(NOBODY)"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier']"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}},
        {
            "name": "NONE",
            "valueFrom": {"configMapKeyRef": {"name": "no", "key": "n", "optional": True}},
        },
    ]
    built = pod(
        "environment",
        'echo "$COMBINED|$LABEL|$CPU|$KEY|${NONE-unset}|${KUBELET_ONLY-unset}|$IP"',
        container={
            "env": env,
            "envFrom": [{"prefix": "FROM_", "configMapRef": {"name": "settings"}}],
            "resources": {"limits": {"cpu": "250m"}},
        },
    )
    built["metadata"]["labels"] = {"tier": "gold"}
    laptop.apply({**config, "data": {"A": "a"}}, {**secret, "stringData": {"k": "s3cret"}}, built)
    found = wait_phase(laptop, "environment", "Succeeded")

    ip = found["status"]["podIP"]
    expected = f"p-a-$(PLAIN)-$(NOBODY)|gold|1|s3cret|unset|unset|{ip}"
    assert laptop.kubectl("logs", "environment").strip() == expected


def test_missing_config_map_holds_the_start(laptop: Laptop) -> None:
    """A container waits for the ConfigMap that its variables name, and starts when it comes."""
    reference = {"configMapKeyRef": {"name": "late", "key": "k"}}
    env = [{"name": "LATE", "valueFrom": reference}]
    laptop.apply(pod("waits", "echo $LATE", container={"env": env}))

    def look() -> bool:
        found = laptop.get("pod", "waits").get("status", {}).get("containerStatuses", [{}])
        waiting = found[0].get("state", {}).get("waiting", {})
        return waiting.get("reason") == "CreateContainerConfigError"

    laptop.wait(look, "the container waits for its configuration")
    laptop.kubectl("create", "configmap", "late", "--from-literal=k=v")
    wait_phase(laptop, "waits", "Succeeded")

    assert laptop.kubectl("logs", "waits").strip() == "v"


def test_volumes_lie_at_their_mount_paths(laptop: Laptop) -> None:
    """Files of every kind of volume are found below the container's root."""
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}}
    volumes = [
        {"name": "config", "configMap": {"name": "files", "items": [{"key": "a", "path": "x/y"}]}},
        {"name": "scratch", "emptyDir": {}},
        {
            "name": "mixed",
            "projected": {
                "sources": [
                    {"configMap": {"name": "files"}},
                    {
                        "downwardAPI": {
                            "items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]
                        }
                    },
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                ]
            },
        },
    ]
    mounts = [
        {"name": "config", "mountPath": "/etc/config"},
        {"name": "config", "mountPath": "/etc/one-file", "subPath": "x/y"},
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "mixed", "mountPath": "/mixed"},
    ]
    script = (
        "cd $LORALAND_ROOT; echo hi > scratch/f; cat etc/config/x/y etc/one-file scratch/f "
        "mixed/name mixed/a; test -s mixed/token && echo token"
    )
    laptop.apply(
        {**config, "data": {"a": "A\n"}},
        pod("mounts", script, volumes=volumes, container={"volumeMounts": mounts}),
    )
    wait_phase(laptop, "mounts", "Succeeded")

    assert laptop.kubectl("logs", "mounts").split() == ["A", "A", "hi", "mountsA", "token"]


def test_mounted_config_map_follows_its_object(laptop: Laptop) -> None:
    """A running container sees the new content of a ConfigMap."""
    laptop.kubectl("create", "configmap", "moving", "--from-literal=k=before")
    script = "while ! grep -q after $LORALAND_ROOT/m/k; do sleep 0.05; done; echo saw it"
    mounts = {"volumeMounts": [{"name": "m", "mountPath": "/m"}]}
    volume = {"name": "m", "configMap": {"name": "moving"}}
    laptop.apply(pod("follows", script, volumes=[volume], container=mounts))
    wait_phase(laptop, "follows", "Running")
    laptop.kubectl("patch", "configmap", "moving", "-p", '{"data": {"k": "after"}}')

    assert wait_phase(laptop, "follows", "Succeeded")["status"]["phase"] == "Succeeded"


def test_claimed_volume_outlives_its_pod(laptop: Laptop) -> None:
    """What one pod writes into a claim, the next pod reads."""
    claim: Object = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    claim |= {"metadata": {"name": "data"}}
    claim["spec"] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/data"}]}
    laptop.apply(
        claim,
        pod("writes", "echo kept > $LORALAND_ROOT/data/f", volumes=[volume], container=mounts),
    )
    wait_phase(laptop, "writes", "Succeeded")
    laptop.kubectl("delete", "pod", "writes")
    laptop.apply(pod("reads", "cat $LORALAND_ROOT/data/f", volumes=[volume], container=mounts))
    wait_phase(laptop, "reads", "Succeeded")

    assert laptop.kubectl("logs", "reads").strip() == "kept"
    assert laptop.get("pvc", "data")["status"]["phase"] == "Bound"
    laptop.kubectl("delete", "pod/reads", "pvc/data")
    laptop.wait(lambda: not laptop.items("pv"), "the volume goes with its claim")
    assert not (laptop.directory / "kubelet" / "volumes" / "default" / "data").exists()


def test_crashing_container_is_restarted_with_growing_pauses(laptop: Laptop) -> None:
    """A container that keeps failing is started again, and its former logs can be read."""
    laptop.apply(pod("crashes", "echo attempt; exit 1", policy="Always"))

    def look() -> bool:
        statuses = laptop.get("pod", "crashes").get("status", {}).get("containerStatuses", [{}])
        waiting = statuses[0].get("state", {}).get("waiting", {})
        return waiting.get("reason") == "CrashLoopBackOff" and statuses[0]["restartCount"] >= 2

    laptop.wait(look, "the container is in a crash loop")
    found = laptop.get("pod", "crashes")

    assert found["status"]["phase"] == "Running"
    assert found["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1
    assert laptop.kubectl("logs", "crashes", "--previous").strip() == "attempt"
    laptop.kubectl("delete", "pod", "crashes", "--now")


def test_init_containers_run_first_and_in_order(laptop: Laptop) -> None:
    """Init containers run one after the other before the main one."""
    volume = [{"name": "v", "emptyDir": {}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    inits = [
        {
            "name": f"init-{number}",
            "image": "busybox",
            "command": ["sh", "-c", f"echo {number} >> $LORALAND_ROOT/v/f"],
            "volumeMounts": mounts,
        }
        for number in (1, 2)
    ]
    built = pod("inits", "cat $LORALAND_ROOT/v/f", initContainers=inits, volumes=volume)
    built["spec"]["containers"][0]["volumeMounts"] = mounts
    laptop.apply(built)
    wait_phase(laptop, "inits", "Succeeded")

    assert laptop.kubectl("logs", "inits", "-c", "c").split() == ["1", "2"]


def test_sidecar_starts_before_and_ends_after(laptop: Laptop) -> None:
    """An init container that restarts always runs beside the main one, and ends when that does."""
    script = f"trap 'exit 0' TERM; {WAIT}"
    sidecar = {"name": "side", "image": "busybox", "command": ["sh", "-c", script]}
    sidecar |= {"restartPolicy": "Always"}
    laptop.apply(pod("sidecar", "echo main", initContainers=[sidecar]))
    found = wait_phase(laptop, "sidecar", "Succeeded")

    ended = found["status"]["initContainerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == 0


SERVER = """
import http.server, os, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = pathlib.Path(os.environ['TMPDIR'], 'ok').exists()
        self.send_response(200 if ok else 503); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer((os.environ['IP'], 8080), Handler).serve_forever()
"""
IP = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]


def test_two_pods_listen_on_the_same_port(laptop: Laptop) -> None:
    """Each pod has an address of its own, and readiness follows its HTTP probe."""
    probe = {"httpGet": {"port": "web", "path": "/"}, "periodSeconds": 1, "failureThreshold": 1}
    container = {
        "env": IP,
        "ports": [{"name": "web", "containerPort": 8080}],
        "readinessProbe": probe,
    }
    for name in ("web-1", "web-2"):
        laptop.apply(python_pod(name, SERVER, container=container, policy="Always"))
        wait_phase(laptop, name, "Running")
    first = laptop.get("pod", "web-1")
    root = laptop.directory / "kubelet" / "t" / first["metadata"]["uid"][:8] / "c"
    (root / "ok").touch()
    laptop.kubectl("wait", "--for=condition=Ready", "pod/web-1", "--timeout=10s")
    (root / "ok").unlink()
    laptop.kubectl("wait", "--for=condition=Ready=false", "pod/web-1", "--timeout=10s")
    second = laptop.get("pod", "web-2")

    assert first["status"]["podIP"] != second["status"]["podIP"]
    assert [c["ready"] for c in second["status"]["containerStatuses"]] == [False]
    assert "Unhealthy" in reasons(laptop, "web-2")
    laptop.kubectl("delete", "pod", "web-1", "web-2", "--now")


def test_failed_liveness_restarts_the_container(laptop: Laptop) -> None:
    """A container whose liveness probe fails is stopped and started again."""
    probe = {"exec": {"command": ["sh", "-c", "exit 1"]}, "periodSeconds": 1, "failureThreshold": 1}
    built = pod("unwell", "exec sleep 60", policy="Always", container={"livenessProbe": probe})
    laptop.apply(built)

    def look() -> bool:
        statuses = laptop.get("pod", "unwell").get("status", {}).get("containerStatuses", [{}])
        return int(statuses[0].get("restartCount", 0)) >= 1

    laptop.wait(look, "the container was restarted")
    found = laptop.get("pod", "unwell")
    assert found["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 143
    laptop.kubectl("delete", "pod", "unwell", "--now")


def test_lifecycle_hooks_run_around_the_container(laptop: Laptop) -> None:
    """PostStart runs beside the container's start, and preStop before its SIGTERM."""
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo post > $TMPDIR/post"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "touch $TMPDIR/leave; sleep 0.2"]}},
    }
    script = (
        "until test -e $TMPDIR/post; do sleep 0.02; done; echo started; "
        "until test -e $TMPDIR/leave; do sleep 0.02; done; echo leaving; exit 0"
    )
    laptop.apply(pod("hooks", script, policy="Always", container={"lifecycle": hooks}))
    found = wait_phase(laptop, "hooks", "Running")
    laptop.wait(lambda: "started" in laptop.kubectl("logs", "hooks"), "the first hook has run")
    laptop.kubectl("delete", "pod", "hooks", "--timeout=10s")

    log = next(laptop.directory.glob(f"kubelet/logs/*{found['metadata']['uid']}/c/0.log"))
    assert log.read_text().splitlines()[1].endswith("leaving")


@pytest.mark.parametrize(
    ("name", "trap", "expected"),
    [
        pytest.param("polite", "trap 'echo bye; exit 0' TERM", ["up", "bye"], id="ends-itself"),
        pytest.param("stubborn", "trap '' TERM", ["up"], id="is-killed"),
    ],
)
def test_deleted_pod_gets_its_grace(
    laptop: Laptop, name: str, trap: str, expected: list[str]
) -> None:
    """SIGTERM comes first; after the grace nothing is left, and the pod is gone."""
    script = f"{trap}; echo up; {WAIT}"
    laptop.apply(pod(name, script, policy="Always", terminationGracePeriodSeconds=1))
    found = wait_phase(laptop, name, "Running")
    laptop.wait(lambda: "up" in laptop.kubectl("logs", name), "the trap is set")
    laptop.kubectl("delete", "pod", name, "--timeout=10s")

    log = next(laptop.directory.glob(f"kubelet/logs/*{found['metadata']['uid']}/c/0.log"))
    said = [line.split(" ", 3)[3] for line in log.read_text().splitlines()]
    assert said == expected
    laptop.wait(lambda: not any(trap in line for line in laptop.strays()), "no process is left")


def test_pod_deadline_fails_the_pod(laptop: Laptop) -> None:
    """A pod that runs longer than its deadline is stopped."""
    laptop.apply(pod("endless", "exec sleep 60", activeDeadlineSeconds=1))
    found = wait_phase(laptop, "endless", "Failed")

    assert found["status"]["reason"] == "DeadlineExceeded"


def test_memory_limit_kills_the_container(laptop: Laptop) -> None:
    """A container that takes more memory than its limit is killed, and says so."""
    hog = "import time; data = bytearray(b'x') * 200_000_000; time.sleep(60)"
    limits = {"resources": {"limits": {"memory": "100Mi"}}}
    laptop.apply(python_pod("hog", hog, container=limits))
    found = wait_phase(laptop, "hog", "Failed")

    terminated = state(found)["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (137, "OOMKilled")


def test_logs_can_be_followed_and_cut(laptop: Laptop) -> None:
    """``kubectl logs`` follows to the end, cuts to a tail and shows times."""
    laptop.apply(pod("talks", "for i in 1 2 3; do echo line $i; sleep 0.2; done"))
    wait_phase(laptop, "talks", "Running", "Succeeded")
    followed = laptop.kubectl("logs", "-f", "talks").splitlines()
    tail = laptop.kubectl("logs", "talks", "--tail=1", "--timestamps").split()

    assert followed == ["line 1", "line 2", "line 3"]
    assert tail[1:] == ["line", "3"]
    assert tail[0].startswith(str(time.gmtime().tm_year))


def test_logs_are_served_over_tls(laptop: Laptop) -> None:
    """A real API server asks for logs at the port in the node's status, over TLS."""
    laptop.apply(pod("secret-talk", "echo over TLS"))
    wait_phase(laptop, "secret-talk", "Succeeded")
    status = laptop.get("node", "laptop")["status"]
    port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    url = f"https://{status['addresses'][0]['address']}:{port}/containerLogs/default/secret-talk/c"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with urllib.request.urlopen(url, timeout=10, context=context) as response:
        text = response.read()

    assert text == b"over TLS\n"


def test_pod_that_no_node_can_run_says_why(laptop: Laptop) -> None:
    """A pod that needs a GPU stays pending with the scheduler's message."""
    limits = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    laptop.apply(pod("needs-gpu", "true", container=limits))

    def look() -> str:
        conditions = laptop.get("pod", "needs-gpu").get("status", {}).get("conditions", [])
        return "".join(c.get("message", "") for c in conditions if c["type"] == "PodScheduled")

    message = laptop.wait(look, "the pod is unschedulable")
    assert message == "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    laptop.kubectl("delete", "pod", "needs-gpu")
