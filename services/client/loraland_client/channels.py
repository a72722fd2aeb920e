"""Channels to replicas, in clear text or by TLS. The only place of the client that opens them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
from loraland_core.errors import InvalidInput

MAX_RECEIVE_BYTES = 16 * 1024 * 1024
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    # A machine that vanished says nothing: found out by pings while a call runs.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # One that was restarted is found again within seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
)


@dataclass(frozen=True)
class Tls:
    """Whom to trust, and who we are; all of it PEM.

    Without ``ca`` the system's authorities are trusted. ``certificate`` and ``key`` name us to a
    replica that asks for them. ``server_name`` is the name in the replica's certificate where the
    address is another one, such as a pod's.
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidInput("give both or neither", field="certificate, key")

    @classmethod
    def read(
        cls,
        *,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        server_name: str = "",
    ) -> Self:
        """Return what the files hold; raise ``InvalidInput`` naming the one that cannot be read."""
        return cls(_read(ca), _read(certificate), _read(key), server_name)


def open_channel(address: str, tls: Tls | None = None, *, host: str = "") -> grpc.aio.Channel:
    """Return a channel to a replica; it connects with its first call.

    ``host`` is the name and port that the address was found by, if it was: what the replica's
    certificate is for.
    """
    options = [*_OPTIONS, *([("grpc.default_authority", host)] if host else [])]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    server_name = tls.server_name or host.rpartition(":")[0]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    return grpc.aio.secure_channel(address, credentials, options=options)


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", field=str(path)) from error
