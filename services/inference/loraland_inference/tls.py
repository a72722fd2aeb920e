"""The serving port's certificate: read from mounted files, and again when they change.

A new pair that is broken leaves the one before it in force. New connections get the newest; those
that are open stay as they are.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from loraland_core.errors import InvalidInput

from loraland_inference.access import TlsFiles
from loraland_inference.tokens import file_version

log = logging.getLogger("loraland.tls")

MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class _Pair:
    certificate: bytes
    key: bytes
    client_ca: bytes | None
    expires_at: datetime


class Certificate:
    """The pair in force. ``on_read`` hears whether each reading of changed files went well.

    gRPC asks for it from threads of its own, one for each new connection.
    """

    def __init__(
        self,
        files: TlsFiles,
        on_read: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Read the files; raise ``InvalidInput`` where they cannot be served with."""
        self._files = files
        self._on_read = on_read
        self._clock = clock
        self._lock = threading.Lock()
        self._version = self._stat()
        self._pair = _read(files, clock())
        self._served: _Pair | None = None
        self._on_read(True)

    @property
    def expires_at(self) -> datetime:
        return self._pair.expires_at

    def credentials(self) -> grpc.ServerCredentials:
        self._served = self._pair
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._pair),
            self._next,  # type: ignore[arg-type]  # None is allowed, and means no change
            require_client_authentication=self._files.client_ca is not None,
        )

    def refresh(self) -> None:
        """Read the files if they changed."""
        with self._lock:
            version = self._stat()
            if version == self._version:
                return
            self._version = version
            try:
                self._pair = _read(self._files, self._clock())
            except InvalidInput as error:
                log.warning("the certificate cannot be renewed, the one before it stays: %s", error)
                self._on_read(False)
                return
            log.info("the certificate is renewed; it expires at %s", self._pair.expires_at)
            self._on_read(True)

    def _next(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the next handshake shall use; None for what the last one used."""
        self.refresh()
        pair = self._pair
        if pair is self._served:
            return None
        self._served = pair
        return _configuration(pair)

    def _stat(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(file_version(path) for path in self._files.paths)


def _configuration(pair: _Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pair.key, pair.certificate)], root_certificates=pair.client_ca
    )


def _read(files: TlsFiles, now: datetime) -> _Pair:
    """Return the pair; raise ``InvalidInput`` naming the file that is wrong."""
    chain, key = _read_file(files.certificate), _read_file(files.key)
    client_ca = _read_file(files.client_ca) if files.client_ca is not None else None
    certificate = _certificates(chain, files.certificate)[0]
    try:
        private_key = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        # Not the error's own text: it may tell of the key.
        raise InvalidInput(
            "is no PEM private key without a password", field=str(files.key)
        ) from None
    if private_key.public_key() != certificate.public_key():
        raise InvalidInput(f"is not the key of {files.certificate}", field=str(files.key))
    if certificate.not_valid_after_utc <= now:
        raise InvalidInput(
            f"expired at {certificate.not_valid_after_utc}", field=str(files.certificate)
        )
    if client_ca is not None and files.client_ca is not None:
        _certificates(client_ca, files.client_ca)
    return _Pair(chain, key, client_ca, certificate.not_valid_after_utc)


def _certificates(data: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise InvalidInput("holds no PEM certificate", field=str(path)) from None


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", field=str(path)) from error
