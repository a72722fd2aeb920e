"""Where Redis is and how it is spoken to: parsed from the environment, the same for every part.

No I/O; ``redis_connection`` opens what this describes. Nothing here ever says a password: neither
in an error nor in a ``repr``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from loraland_core.errors import InvalidInput

URL = "LORALAND_REDIS_URL"
USER, PASSWORD = "LORALAND_REDIS_USER", "LORALAND_REDIS_PASSWORD"
REGISTRY_USER = "LORALAND_REDIS_REGISTRY_USER"
REGISTRY_PASSWORD = "LORALAND_REDIS_REGISTRY_PASSWORD"  # noqa: S105 (the same)
SENTINEL_USER = "LORALAND_REDIS_SENTINEL_USER"
SENTINEL_PASSWORD = "LORALAND_REDIS_SENTINEL_PASSWORD"  # noqa: S105 (the same)
CA_FILE = "LORALAND_REDIS_CA_FILE"
CERT_FILE, KEY_FILE = "LORALAND_REDIS_CERT_FILE", "LORALAND_REDIS_KEY_FILE"
TIMEOUT_S = "LORALAND_REDIS_TIMEOUT_S"
SETTINGS = (
    *(URL, USER, PASSWORD, REGISTRY_USER, REGISTRY_PASSWORD, SENTINEL_USER, SENTINEL_PASSWORD),
    *(CA_FILE, CERT_FILE, KEY_FILE, TIMEOUT_S),
)

DEFAULT_TIMEOUT_S = 3.0
# A blocking read lasts a second; a timeout below it would break each of them.
MIN_TIMEOUT_S = 2.0
MAX_TIMEOUT_S = 60.0
REDIS_PORT, SENTINEL_PORT = 6379, 26379

Address = tuple[str, int]


class Topology(Enum):
    """What answers at the addresses of the URL."""

    SERVER = "redis"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


@dataclass(frozen=True)
class Login:
    """An ACL user. Without a name it is Redis's ``default``; without a password nothing is sent."""

    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Tls:
    """Files in PEM; without a CA file the system's authorities decide."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


@dataclass(frozen=True)
class RedisSettings:
    """``addresses`` are the server, the Sentinels, or some nodes of the Cluster.

    ``registry_login`` reads the registry and nothing else; it is ``login`` where none is given.
    """

    topology: Topology
    addresses: tuple[Address, ...]
    login: Login = Login()
    registry_login: Login = Login()
    sentinel_login: Login = Login()
    service: str = ""
    database: int = 0
    tls: Tls | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S

    def __str__(self) -> str:
        where = ",".join(f"{host}:{port}" for host, port in self.addresses)
        return f"{self.topology.value} {where}" + (f" {self.service}" if self.service else "")


def read(environ: Mapping[str, str]) -> RedisSettings:
    """Return the settings; raise ``InvalidInput`` naming the variable that is wrong."""
    url = environ.get(URL, "")
    if not url:
        raise InvalidInput("must be set, for example redis://redis:6379/0", field=URL)
    try:
        split = urlsplit(url)
        parsed = _parse(split)
        in_url = Login(unquote(split.username or ""), unquote(split.password or ""))
    except ValueError as error:
        if isinstance(error, InvalidInput):
            raise
        # Not the error's own text: it may quote a part of the password.
        raise _senseless() from None
    login = Login(environ.get(USER) or in_url.user, environ.get(PASSWORD) or in_url.password)
    return RedisSettings(
        **parsed,
        login=login,
        registry_login=Login(
            environ.get(REGISTRY_USER) or login.user,
            environ.get(REGISTRY_PASSWORD) or login.password,
        ),
        sentinel_login=Login(environ.get(SENTINEL_USER, ""), environ.get(SENTINEL_PASSWORD, "")),
        tls=_tls(environ, is_on=split.scheme.startswith("rediss")),
        timeout_s=_timeout_s(environ),
    )


def _parse(split: SplitResult) -> dict[str, Any]:
    """Return what the URL says, its login apart."""
    scheme = split.scheme.replace("rediss", "redis", 1)
    if scheme not in {topology.value for topology in Topology}:
        raise _senseless()
    if split.query or split.fragment:
        raise InvalidInput("takes no ? and no # part; encode them in a password", field=URL)
    topology = Topology(scheme)
    port = SENTINEL_PORT if topology is Topology.SENTINEL else REDIS_PORT
    places = split.netloc.rpartition("@")[2].split(",")
    addresses = tuple(_address(place, port) for place in places)
    path = [unquote(part) for part in split.path.split("/") if part]
    service = ""
    if topology is Topology.SENTINEL:
        if not path:
            raise InvalidInput("names no service: redis+sentinel://host,host/service", field=URL)
        service = path.pop(0)
    elif topology is Topology.SERVER and len(addresses) > 1:
        raise InvalidInput(
            "names several hosts; write redis+sentinel:// or redis+cluster://", field=URL
        )
    database = _database(path)
    if topology is Topology.CLUSTER and database:
        raise InvalidInput("a Redis Cluster has no databases; leave the number out", field=URL)
    return {
        "topology": topology,
        "addresses": addresses,
        "service": service,
        "database": database,
    }


def _address(place: str, default_port: int) -> Address:
    # One place at a time: the host of a whole URL cannot be a list.
    split = urlsplit(f"//{place}")
    if not split.hostname:
        raise _senseless()
    return split.hostname, split.port or default_port


def _database(path: list[str]) -> int:
    if not path:
        return 0
    if len(path) > 1 or not path[0].isdecimal():
        raise _senseless()
    return int(path[0])


def _tls(environ: Mapping[str, str], *, is_on: bool) -> Tls | None:
    tls = Tls(environ.get(CA_FILE, ""), environ.get(CERT_FILE, ""), environ.get(KEY_FILE, ""))
    if tls != Tls() and not is_on:
        raise InvalidInput(
            "must begin with rediss for TLS, or the files for it must not be set", field=URL
        )
    if bool(tls.cert_file) != bool(tls.key_file):
        raise InvalidInput(
            f"goes together with {KEY_FILE}; one of them is not set", field=CERT_FILE
        )
    return tls if is_on else None


def _timeout_s(environ: Mapping[str, str]) -> float:
    text = environ.get(TIMEOUT_S) or str(DEFAULT_TIMEOUT_S)
    try:
        timeout_s = float(text)
    except ValueError:
        timeout_s = 0.0
    if not MIN_TIMEOUT_S <= timeout_s <= MAX_TIMEOUT_S:
        raise InvalidInput(
            f"is {text!r}; expected seconds from {MIN_TIMEOUT_S:g} to {MAX_TIMEOUT_S:g}",
            field=TIMEOUT_S,
        )
    return timeout_s


def _senseless() -> InvalidInput:
    return InvalidInput(
        "expected redis://user:password@host:port/number, redis+sentinel://host:port,host/service"
        " or redis+cluster://host:port,host (rediss… for TLS), all of it percent-encoded",
        field=URL,
    )
