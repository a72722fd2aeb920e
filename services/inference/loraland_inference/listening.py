"""The serving port: its services behind the gate, what a connection may ask of it, and its TLS."""

from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from loraland_core.errors import InvalidInput
from loraland_core.rpc import admin_pb2, inference_pb2

from loraland_inference import requests
from loraland_inference.gate import Gate
from loraland_inference.tls import Certificate

SERVICES = (
    inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name,
    admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name,
)
Add = Callable[[Any, grpc.aio.Server], None]

# Of one connection; above what a replica takes at a time, so that a caller hears that it is full.
MIN_STREAMS = 128
# A token, a trace and what proxies add are far below.
MAX_METADATA_BYTES = 16 * 1024
MIN_PING_GAP_MS = 10_000
# A caller's machine that vanished is noticed, and its requests end.
KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 60_000, 20_000


def build_server(
    gate: Gate,
    services: dict[Add, Any],
    health_servicer: health.aio.HealthServicer,
    *,
    max_requests: int,
) -> grpc.aio.Server:
    """Return the server, without a port yet; ``services`` by the function that adds each."""
    server = grpc.aio.server(
        interceptors=[gate],
        options=[
            ("grpc.max_receive_message_length", requests.MAX_MESSAGE_BYTES),
            ("grpc.max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.max_concurrent_streams", max(MIN_STREAMS, 2 * max_requests)),
            ("grpc.so_reuseport", 0),
            # Clients ping while a call runs, to find out that this machine has vanished.
            ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_GAP_MS),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ],
    )
    for add, servicer in services.items():
        add(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server


def open_port(server: grpc.aio.Server, address: str, certificate: Certificate | None) -> None:
    """Listen; raise ``InvalidInput`` where the address cannot be had."""
    try:
        if certificate is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, certificate.credentials())
    except RuntimeError as error:
        raise InvalidInput(
            f"{address} is taken or not ours; choose another LORALAND_PORT", field="LORALAND_PORT"
        ) from error
