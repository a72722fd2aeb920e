"""Where a stack keeps what: one directory, and ``stack.json`` that tells its state. Files only.

The supervisor alone writes ``stack.json``; the command reads it.
"""

import dataclasses
import os
from pathlib import Path
from typing import Literal

from loraland_core.errors import InvalidInput
from loraland_core.resources.common import Model
from pydantic import ValidationError

STATE_VARIABLE = "LORALAND_STATE"
DEFAULT_STATE = ".loraland"
SCHEMA_VERSION = 1

StationState = Literal["waiting", "starting", "ready", "restarting", "failed", "stopped"]
StackState = Literal["starting", "ready", "failed", "stopping"]


class Station(Model):
    """One part of the stack as people see it."""

    name: str
    state: StationState = "waiting"
    detail: str = ""
    pid: int | None = None
    address: str = ""
    seconds: float | None = None
    restarts: int = 0


class StackRecord(Model):
    """What ``stack.json`` holds; no secret."""

    schema_version: int = SCHEMA_VERSION
    state: StackState
    pid: int
    block: str = ""
    api_url: str = ""
    store_url: str = ""
    redis_address: str = ""
    base_model: str
    grpc_port: int
    stations: list[Station] = []
    failure: str = ""
    failure_log: str = ""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Paths below the state directory."""

    state: Path

    @property
    def record(self) -> Path:
        return self.state / "stack.json"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def marker(self) -> Path:
        return self.state / "loraland-stack"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def api(self) -> Path:
        return self.state / "api"

    @property
    def secrets(self) -> Path:
        return self.state / "secrets.json"

    @property
    def api_tokens(self) -> Path:
        return self.state / "api-tokens.csv"

    @property
    def api_token(self) -> Path:
        return self.state / "api-token"

    @property
    def adapters(self) -> Path:
        return self.state / "adapters"

    @property
    def token(self) -> Path:
        return self.state / "token"

    @property
    def images(self) -> Path:
        return self.state / "images.json"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def kubelet(self) -> Path:
        return self.state / "kubelet"

    @property
    def objects(self) -> Path:
        return self.state / "s3"

    @property
    def redis(self) -> Path:
        return self.state / "redis"

    def log(self, station: str) -> Path:
        return self.logs / f"{station}.log"

    def read_record(self) -> StackRecord | None:
        """Return what the last supervisor wrote, which may be long dead."""
        try:
            text = self.record.read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return StackRecord.model_validate_json(text)
        except ValidationError as error:
            raise InvalidInput(
                "is not a stack's record; remove the directory to start afresh",
                field=str(self.record),
            ) from error

    def write_record(self, record: StackRecord) -> None:
        write_atomically(self.record, record.model_dump_json(by_alias=True, indent=2) + "\n")


def locate(state: Path | None) -> Layout:
    """Return the layout of the given directory, of ``LORALAND_STATE`` or of ``./.loraland``."""
    chosen = state or Path(os.environ.get(STATE_VARIABLE) or DEFAULT_STATE)
    return Layout(chosen.expanduser().absolute().resolve())


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
