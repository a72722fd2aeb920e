"""What a replica is at the moment Prometheus asks: read from its parts, counted nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass

from loraland_inference.adapters.link import Link
from loraland_inference.adapters.tiers import Tiers
from loraland_inference.engine_client import EngineClient
from loraland_inference.metrics import Metrics
from loraland_inference.server_state import ServerState

# What the engine says of itself, by its name there, as (name here, explanation).
ENGINE_GAUGES = {
    "num_waiting": ("engine_waiting", "Completions that wait for KV memory."),
    "num_running": ("engine_running", "Completions in the batch."),
    "num_kv_blocks": ("engine_kv_blocks", "Blocks of KV memory."),
    "num_free_kv_blocks": ("engine_kv_free_blocks", "Those that no completion holds."),
}
ENGINE_COUNTERS = {
    "num_prefix_query_tokens": (
        "engine_prefix_query_tokens", "Tokens of prompts looked up in the prefix cache.",
    ),
    "num_prefix_hit_tokens": (
        "engine_prefix_hit_tokens", "Those that were found and not computed.",
    ),
    "num_preemptions": (
        "engine_preemptions", "Completions that gave way and were computed again.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """Where the values are."""

    state: ServerState
    tiers: Tiers
    # By what this replica wants of Redis.
    links: dict[str, Link]
    engine: EngineClient
    # Seconds since the epoch; infinite without TLS.
    certificate_expires_s: Callable[[], float]
    is_ready: Callable[[], bool]


def watch(metrics: Metrics, parts: Parts) -> None:
    """Export them, until the process ends."""
    coordinator, engine = parts.tiers.coordinator, parts.engine
    registry, slots = coordinator.registry, coordinator.slots
    gauge, counter = metrics.watch, metrics.watch_counter
    gauge("ready", "1 while the replica takes requests.", parts.is_ready)
    gauge("requests_running", "Running and waiting.", lambda: parts.state.num_requests)
    gauge("slots", "Places for adapters in the engine.", lambda: slots.num_slots)
    gauge("adapters_resident", "In slots.", lambda: len(slots.loaded))
    gauge("adapters_known", "Registered.", lambda: len(registry))
    gauge("adapters_rejected", "Refused by this replica.", lambda: len(registry.rejections()))
    gauge("registry_known", "1 once it has been read whole.", lambda: registry.is_known)
    gauge(
        "tls_certificate_expiry_timestamp_seconds",
        "When the serving certificate expires; infinite without TLS.",
        parts.certificate_expires_s,
    )
    _watch_tiers(metrics, parts.tiers)
    _watch_links(metrics, parts.links)
    for name, (exported, text) in ENGINE_GAUGES.items():
        gauge(exported, text, _stat(engine, name))
    for name, (exported, text) in ENGINE_COUNTERS.items():
        counter(exported, text, _stat(engine, name))
    counter("engine_restarts", "Engines started after the first.", lambda: engine.num_restarts)


def _stat(engine: EngineClient, name: str) -> Callable[[], float]:
    return lambda: engine.stat(name)


def _watch_tiers(metrics: Metrics, tiers: Tiers) -> None:
    slots = tiers.coordinator.slots
    metrics.watch_each(
        "adapter_tier_bytes",
        "What adapters take in a tier.",
        "tier",
        lambda: {
            "disk": tiers.disk.used_bytes,
            "host": tiers.host.used_bytes,
            "slot": sum(slot.size_bytes for slot in slots.loaded_slots),
        },
    )
    metrics.watch_each(
        "adapter_tier_free_bytes",
        "What is left of a tier's budget.",
        "tier",
        lambda: {"disk": tiers.disk.free_bytes, "host": tiers.host.free_bytes},
    )


def _watch_links(metrics: Metrics, links: dict[str, Link]) -> None:
    """Export how this replica gets along with Redis, for each of its uses of it."""
    metrics.watch_each(
        "redis_up",
        "1 while Redis does as asked.",
        "use",
        lambda: {use: link.is_up for use, link in links.items()},
    )
    metrics.watch_each(
        "redis_silent_seconds",
        "Since it last did; infinite before it first does.",
        "use",
        lambda: {use: link.silent_s for use, link in links.items()},
    )
    metrics.watch_each_counter(
        "redis_failures",
        "Attempts that failed.",
        "use",
        lambda: {use: link.num_failures for use, link in links.items()},
    )
