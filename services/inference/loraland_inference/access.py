"""How callers reach a replica, for how long, and what is told of their calls: settings. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from loraland_core.errors import InvalidInput

CERT_FILE, KEY_FILE = "LORALAND_TLS_CERT_FILE", "LORALAND_TLS_KEY_FILE"
CLIENT_CA_FILE = "LORALAND_TLS_CLIENT_CA_FILE"
MAX_DEADLINE_S = "LORALAND_MAX_DEADLINE_S"
METRICS_TOP = "LORALAND_METRICS_TOP"
TRACES_ENDPOINT = "LORALAND_TRACES_ENDPOINT"
TRACES_SAMPLE_RATIO = "LORALAND_TRACES_SAMPLE_RATIO"

DEFAULT_DEADLINE_S = 600
DEFAULT_TOP = 50
# Each costs about thirty series.
MAX_TOP = 1000


@dataclass(frozen=True)
class TlsFiles:
    """PEM files. With ``client_ca`` every client must show a certificate of that authority."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> list[Path]:
        return [p for p in (self.certificate, self.key, self.client_ca) if p is not None]


@dataclass(frozen=True)
class Access:
    """Without ``tls`` the port speaks clear text; without an endpoint there are no traces."""

    tls: TlsFiles | None = None
    max_deadline_s: float = DEFAULT_DEADLINE_S
    metrics_top: int = DEFAULT_TOP
    traces_endpoint: str = ""
    traces_sample_ratio: float = 1.0


def read(environ: Mapping[str, str]) -> Access:
    """Return the settings; raise ``InvalidInput`` naming the variable that is wrong."""
    return Access(
        tls=_tls(environ),
        max_deadline_s=_whole(environ, MAX_DEADLINE_S, DEFAULT_DEADLINE_S, least=1, most=86_400),
        metrics_top=_whole(environ, METRICS_TOP, DEFAULT_TOP, least=0, most=MAX_TOP),
        traces_endpoint=_endpoint(environ),
        traces_sample_ratio=_ratio(environ),
    )


def _tls(environ: Mapping[str, str]) -> TlsFiles | None:
    certificate, key, client_ca = (
        environ.get(name, "") for name in (CERT_FILE, KEY_FILE, CLIENT_CA_FILE)
    )
    if not certificate and not key:
        if client_ca:
            raise InvalidInput(f"wants {CERT_FILE} and {KEY_FILE} as well", field=CLIENT_CA_FILE)
        return None
    if not certificate or not key:
        missing, given = (CERT_FILE, KEY_FILE) if not certificate else (KEY_FILE, CERT_FILE)
        raise InvalidInput(f"must be set where {given} is", field=missing)
    return TlsFiles(Path(certificate), Path(key), Path(client_ca) if client_ca else None)


def _endpoint(environ: Mapping[str, str]) -> str:
    endpoint = environ.get(TRACES_ENDPOINT, "")
    if endpoint and (urlsplit(endpoint).scheme not in ("http", "https") or "@" in endpoint):
        raise InvalidInput("expected http://host:port or https://host:port", field=TRACES_ENDPOINT)
    return endpoint


def _ratio(environ: Mapping[str, str]) -> float:
    text = environ.get(TRACES_SAMPLE_RATIO) or "1"
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        raise InvalidInput(f"is {text!r}; expected 0 to 1", field=TRACES_SAMPLE_RATIO)
    return ratio


def _whole(environ: Mapping[str, str], name: str, default: int, *, least: int, most: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise InvalidInput(
            f"is {text!r}; expected a whole number from {least} to {most}", field=name
        )
    return int(text)
