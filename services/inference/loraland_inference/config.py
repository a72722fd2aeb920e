"""The server's settings, read once from the environment by ``main``. No I/O but the catalogue file."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraland_core import catalogue, paths, redis_settings
from loraland_core.errors import InvalidInput
from loraland_core.redis_settings import RedisSettings
from loraland_core.store import StoreConfig

from loraland_inference import access
from loraland_inference.access import Access

CATALOGUE_FILE = "/etc/loraland/catalogue/catalogue.yaml"
TOKENS_FILE = "/etc/loraland/tokens/tokens.json"


@dataclass(frozen=True)
class Config:
    """``replica`` names this process in Redis; ``address`` is where others reach it."""

    base_model: str
    entry: catalogue.BaseModelEntry
    store: StoreConfig
    redis: RedisSettings
    tokens_file: Path
    access: Access
    cache_dir: Path
    adapter_dir: Path
    packed_dir: Path
    disk_bytes: int
    host_bytes: int
    slot_bytes: int
    max_adapter_bytes: int
    concurrent_fetches: int
    replica: str
    host: str
    port: int
    metrics_port: int
    num_slots: int
    max_running: int
    max_queue: int
    kv_memory_bytes: int
    prefix_cache: bool
    engine_threads: int
    step_limit_s: float
    start_limit_s: float
    drain_grace_s: float
    log_level: str
    log_as_json: bool

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


def read(environ: Mapping[str, str]) -> Config:
    """Return the settings; raise ``InvalidInput`` naming the variable that is wrong."""
    base_model = _required(environ, "LORALAND_BASE_MODEL")
    catalogue_file = Path(environ.get("LORALAND_CATALOGUE") or paths.mounted(CATALOGUE_FILE))
    cache_dir = paths.cache_dir()
    adapter_dir = Path(environ.get("LORALAND_ADAPTER_DIR") or cache_dir / "adapters")
    return Config(
        base_model=base_model,
        entry=catalogue.load(catalogue_file).find(base_model),
        store=StoreConfig(
            bucket=_required(environ, "LORALAND_STORE_BUCKET"),
            prefix=environ.get("LORALAND_STORE_PREFIX", ""),
            endpoint_url=environ.get("LORALAND_STORE_ENDPOINT_URL") or None,
            region=environ.get("LORALAND_STORE_REGION") or "us-east-1",
        ),
        redis=redis_settings.read(environ),
        tokens_file=Path(environ.get("LORALAND_TOKENS_FILE") or paths.mounted(TOKENS_FILE)),
        access=access.read(environ),
        cache_dir=cache_dir,
        adapter_dir=adapter_dir,
        packed_dir=_packed_dir(environ, adapter_dir),
        disk_bytes=_mebibytes(environ, "LORALAND_DISK_MIB", 16 * 1024, at_least=1),
        host_bytes=_mebibytes(environ, "LORALAND_HOST_MIB", 1024, at_least=1),
        slot_bytes=_mebibytes(environ, "LORALAND_SLOT_MIB", 0),
        max_adapter_bytes=_mebibytes(environ, "LORALAND_MAX_ADAPTER_MIB", 2048, at_least=1),
        concurrent_fetches=_number(environ, "LORALAND_CONCURRENT_FETCHES", 4, at_least=1),
        replica=environ.get("POD_NAME") or socket.gethostname(),
        host=environ.get("POD_IP") or "0.0.0.0",  # noqa: S104 (a pod has its own network)
        port=_number(environ, "LORALAND_PORT", 8500),
        metrics_port=_number(environ, "LORALAND_METRICS_PORT", 9400),
        num_slots=_number(environ, "LORALAND_NUM_SLOTS", 8, at_least=1),
        max_running=_number(environ, "LORALAND_MAX_RUNNING", 16, at_least=1),
        max_queue=_number(environ, "LORALAND_MAX_QUEUE", 256, at_least=1),
        kv_memory_bytes=_number(environ, "LORALAND_KV_MEMORY_MIB", 0) * 1024 * 1024,
        prefix_cache=_switch(environ, "LORALAND_PREFIX_CACHE", default=True),
        engine_threads=_number(environ, "LORALAND_ENGINE_THREADS", 0),
        step_limit_s=_number(environ, "LORALAND_STEP_LIMIT_S", 60, at_least=1),
        start_limit_s=_number(environ, "LORALAND_START_LIMIT_S", 1800, at_least=1),
        drain_grace_s=_number(environ, "LORALAND_DRAIN_GRACE_S", 25),
        log_level=environ.get("LORALAND_LOG_LEVEL") or "INFO",
        log_as_json=environ.get("LORALAND_LOG_FORMAT", "text") == "json",
    )


def engine_settings(config: Config) -> dict[str, Any]:
    """Return what the engine process is started with."""
    return {
        "base_model": config.base_model,
        "entry": config.entry.model_dump(mode="json", by_alias=True),
        "store": config.store.model_dump(mode="json", by_alias=True),
        "cache_dir": str(config.cache_dir),
        "num_slots": config.num_slots,
        "max_running": config.max_running,
        "max_queue": config.max_queue,
        "kv_memory_bytes": config.kv_memory_bytes,
        "prefix_cache": config.prefix_cache,
        "threads": config.engine_threads,
        "log_level": config.log_level,
        "log_as_json": config.log_as_json,
    }


def _packed_dir(environ: Mapping[str, str], adapter_dir: Path) -> Path:
    # A volume of the pod's own, so it lies where the pod's mounts do.
    given = environ.get("LORALAND_PACKED_DIR")
    return paths.mounted(given) if given else adapter_dir / "packed"


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise InvalidInput("must be set", field=name)
    return value


def _switch(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environ.get(name) or str(default).lower()
    if text not in {"true", "false"}:
        raise InvalidInput(f"is {text!r}; expected true or false", field=name)
    return text == "true"


def _mebibytes(environ: Mapping[str, str], name: str, default: int, *, at_least: int = 0) -> int:
    return _number(environ, name, default, at_least=at_least) * 1024 * 1024


def _number(environ: Mapping[str, str], name: str, default: int, *, at_least: int = 0) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < at_least:
        raise InvalidInput(f"is {text!r}; expected a whole number from {at_least}", field=name)
    return int(text)
