"""The operator's settings, read once from the environment."""

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loraland_core import paths, redis_settings
from loraland_core.errors import InvalidInput
from loraland_core.redis_settings import RedisSettings
from loraland_core.store import StoreConfig

CATALOGUE_FILE = "/etc/loraland/catalogue/catalogue.yaml"
LIVENESS_PORT = 8080
METRICS_PORT = 9090


@dataclass(frozen=True)
class Place:
    """Where the operator works and how it logs: all that its commands need to know."""

    # Empty: all namespaces.
    watch_namespaces: tuple[str, ...]
    # Where the Lease lies.
    namespace: str
    log_format: str
    log_level: str


@dataclass(frozen=True)
class Config(Place):
    """What ``main`` hands out."""

    trainer_image: str
    store: StoreConfig
    redis: RedisSettings
    catalogue_file: Path
    bind_address: str
    liveness_port: int
    metrics_port: int
    num_workers: int
    # remove, report or off.
    sweep: str
    sweep_every_s: int
    # By what name this process holds the Lease.
    identity: str


def read_place(environ: Mapping[str, str] = os.environ) -> Place:
    """Return the settings of ``Place``; a senseless one is named."""
    namespaces = environ.get("LORALAND_WATCH_NAMESPACES", "")
    return Place(
        watch_namespaces=tuple(n.strip() for n in namespaces.split(",") if n.strip()),
        namespace=environ.get("POD_NAMESPACE") or "default",
        log_format=_choice(environ, "LORALAND_LOG_FORMAT", ("text", "json")),
        log_level=environ.get("LORALAND_LOG_LEVEL") or "INFO",
    )


def read(environ: Mapping[str, str] = os.environ) -> Config:
    """Return the settings; an absent or senseless one is named."""
    return Config(
        **vars(read_place(environ)),
        trainer_image=_required(environ, "LORALAND_TRAINER_IMAGE"),
        store=_read_store(environ),
        redis=redis_settings.read(environ),
        catalogue_file=Path(environ.get("LORALAND_CATALOGUE") or paths.mounted(CATALOGUE_FILE)),
        bind_address=environ.get("POD_IP") or "0.0.0.0",  # noqa: S104 (a pod's own network)
        liveness_port=_number(environ, "LORALAND_LIVENESS_PORT", LIVENESS_PORT, least=0),
        metrics_port=_number(environ, "LORALAND_METRICS_PORT", METRICS_PORT, least=0),
        num_workers=_number(environ, "LORALAND_NUM_WORKERS", 8, least=1),
        sweep=_choice(environ, "LORALAND_SWEEP", ("report", "remove", "off")),
        sweep_every_s=_number(environ, "LORALAND_SWEEP_EVERY_S", 3600, least=60),
        # A pod runs one operator at a time: restarted in its place, it leads on at once.
        identity=environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4()}",
    )


def _read_store(environ: Mapping[str, str]) -> StoreConfig:
    return StoreConfig(
        bucket=_required(environ, "LORALAND_STORE_BUCKET"),
        prefix=environ.get("LORALAND_STORE_PREFIX", ""),
        endpoint_url=environ.get("LORALAND_STORE_ENDPOINT_URL") or None,
        region=environ.get("LORALAND_STORE_REGION") or "us-east-1",
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise InvalidInput("is not set", field=name)
    return value


def _number(environ: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdigit() or int(text) < least:
        raise InvalidInput(f"expected a whole number from {least} on, found {text!r}", field=name)
    return int(text)


def _choice(environ: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = environ.get(name) or choices[0]
    if value not in choices:
        raise InvalidInput(f"expected one of {', '.join(choices)}, found {value!r}", field=name)
    return value
