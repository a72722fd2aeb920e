"""What one start of a container needs and leaves behind: command, files, termination message."""

import dataclasses
import pathlib
import signal
from collections.abc import Mapping
from typing import Any

from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import environment, hosts, logs, sources, volumes
from loraland_local.kubelet.context import Context
from loraland_local.kubelet.images import Image
from loraland_local.kubelet.process import Command

_MAX_MESSAGE_BYTES = 4096
_MAX_LOG_MESSAGE_BYTES = 2048
_MAX_LOG_MESSAGE_LINES = 80
DEFAULT_TERMINATION_PATH = "/dev/termination-log"


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What the pod offers each of its containers."""

    directory: volumes.PodDirectory
    volumes: Mapping[str, pathlib.Path]
    has_token: bool


async def prepare(
    container: Object, pod: Object, image: Image, around: Surroundings, context: Context
) -> tuple[Command, pathlib.Path]:
    """Lay the container's files out; return its command and the termination message's file."""
    namespace = objects.namespace(pod)
    snapshot = await sources.load(context.cluster, namespace, sources.list_references(pod))
    name = container["name"]
    root = around.directory.root(name)
    message_path = volumes.under(
        root, container.get("terminationMessagePath") or DEFAULT_TERMINATION_PATH
    )
    base = _build_base(
        pod, name, image=image, around=around, context=context, message_path=message_path
    )
    variables = environment.build(
        container, pod, snapshot, base=base, node_allocatable=context.node_allocatable
    )
    variables = await hosts.resolve(variables, pod, context.cluster)
    arguments = environment.build_arguments(image.entrypoint, container, variables)
    if not arguments:
        raise environment.MissingObjectError(
            f'no command specified: image "{container["image"]}" has no entrypoint of its own'
        )
    volumes.lay_out(container, root, around.volumes, variables)
    around.directory.temporary(name).mkdir(parents=True, exist_ok=True)
    message_path.parent.mkdir(parents=True, exist_ok=True)
    message_path.write_bytes(b"")
    directory = root
    if container.get("workingDir"):
        directory = volumes.under(root, container["workingDir"])
        directory.mkdir(parents=True, exist_ok=True)
    return Command(arguments, variables, directory), message_path


def _build_base(
    pod: Object,
    name: str,
    *,
    image: Image,
    around: Surroundings,
    context: Context,
    message_path: pathlib.Path,
) -> dict[str, str]:
    host, port = context.cluster.endpoint
    token = {"KUBECONFIG": str(around.directory.kubeconfig)} if around.has_token else {}
    return {
        **context.config.base_environment,
        "TMPDIR": str(around.directory.temporary(name)),
        "HOSTNAME": pod["spec"].get("hostname") or objects.name(pod),
        "LORALAND_ROOT": str(around.directory.root(name)),
        "LORALAND_TERMINATION_LOG": str(message_path),
        "LORALAND_CACHE_DIR": str(context.config.cache),
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        **token,
        **image.environment,
    }


def read_message(
    container: Object, exit_code: int, message_path: pathlib.Path, log_path: pathlib.Path
) -> str:
    """Return what the container left as its last word, or the end of its log if it failed."""
    try:
        with message_path.open("rb") as file:
            text = file.read(_MAX_MESSAGE_BYTES).decode(errors="replace")
    except OSError:
        text = ""
    if text or exit_code == 0:
        return text
    if container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        return logs.tail_text(log_path, _MAX_LOG_MESSAGE_LINES, _MAX_LOG_MESSAGE_BYTES)
    return ""


def build_terminated(
    exit_code: int,
    *,
    message: str,
    reason: str = "",
    started_at: str | None,
    finished_at: str,
    container_id: str,
) -> Object:
    """Return the ``terminated`` state."""
    state: dict[str, Any] = {
        "exitCode": exit_code,
        "reason": reason or ("Completed" if exit_code == 0 else "Error"),
        "startedAt": started_at,
        "finishedAt": finished_at,
        "containerID": container_id,
    }
    if exit_code > 128 and exit_code - 128 in signal.valid_signals():
        state["signal"] = exit_code - 128
    if message:
        state["message"] = message
    return {"terminated": state}
