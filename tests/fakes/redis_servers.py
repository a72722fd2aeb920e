"""Real Redis servers in every arrangement that the settings can name: Sentinel, Cluster, TLS, users."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import queue
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import redis
import servers
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from loraland_core import redis_acl
from waiting import wait_for

SERVICE = "land"
USERS = Path(__file__).parents[2] / "helm/loraland/files/redis-acl/users.acl"
PASSWORDS = {user: f"password-of-{user}" for user in redis_acl.RULES}


def connect(port: int) -> Any:
    return redis.Redis(port=port, protocol=2, decode_responses=True, socket_timeout=5)


@dataclass
class SentinelLand:
    """A master with a replica, watched by Sentinels."""

    url: str
    sentinel_ports: list[int]
    processes: dict[int, "Popen[bytes]"]

    def master_port(self) -> int:
        with connect(self.sentinel_ports[0]) as client:
            _, port = client.sentinel_get_master_addr_by_name(SERVICE)
        return int(port)


@contextmanager
def sentinels(folder: Path, *, num_sentinels: int = 3) -> Iterator[SentinelLand]:
    """Run a master, a replica and Sentinels that fail over within seconds."""
    with ExitStack() as stack:
        ports = [servers.free_port() for _ in range(2)]
        processes = {ports[0]: stack.enter_context(servers.redis_process(ports[0]))}
        replica_of = ("--replicaof", "127.0.0.1", str(ports[0]))
        processes[ports[1]] = stack.enter_context(servers.redis_process(ports[1], *replica_of))
        sentinel_ports = [servers.free_port() for _ in range(num_sentinels)]
        quorum = num_sentinels // 2 + 1
        for port in sentinel_ports:
            # A Sentinel keeps what it learns in its configuration.
            config = folder / f"sentinel-{port}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {ports[0]} {quorum}\n"
                f"sentinel down-after-milliseconds {SERVICE} 1000\n"
                f"sentinel failover-timeout {SERVICE} 5000\n"
            )
            command = [servers.redis_binary(), str(config), "--sentinel"]
            stack.enter_context(servers.running(command, port))
        land = SentinelLand(
            "redis+sentinel://" + _places(sentinel_ports) + f"/{SERVICE}", sentinel_ports, processes
        )
        wait_for(lambda: all(_knows_all(port, num_sentinels) for port in sentinel_ports))
        yield land


def _knows_all(port: int, num_sentinels: int) -> bool:
    """Whether a Sentinel has found the replica and its peers, without which it cannot act."""
    with connect(port) as client:
        state = client.sentinel_masters()[SERVICE]
        replicas = client.sentinel_slaves(SERVICE)
    is_known = state["num-slaves"] == 1 and state["num-other-sentinels"] == num_sentinels - 1
    return is_known and all(r["master-link-status"] == "ok" for r in replicas)


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Run a Cluster of three masters; yield the URL that names one of them."""
    with ExitStack() as stack:
        ports = [_cluster_port() for _ in range(3)]
        for port in ports:
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
            options += ("--dir", str(folder), "--cluster-config-file", f"nodes-{port}.conf")
            stack.enter_context(servers.redis_process(port, *options))
        bounds = [0, 5461, 10923, 16384]
        for index, port in enumerate(ports):
            with connect(port) as client:
                slots = range(bounds[index], bounds[index + 1])
                client.execute_command("CLUSTER ADDSLOTS", *slots)
                client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0])
        wait_for(lambda: all(_is_whole(port) for port in ports))
        yield f"redis+cluster://{_places(ports[:1])}"


def _is_whole(port: int) -> bool:
    with connect(port) as client:
        # Not parsed by the client, which wants to know more of a Cluster than a node.
        info = client.execute_command("CLUSTER INFO")
    state = info if isinstance(info, dict) else dict(r.split(":") for r in info.split())
    return state["cluster_state"] == "ok" and state["cluster_known_nodes"] == "3"


def _cluster_port() -> int:
    """Return a free port below those whose bus port would be beyond the last one."""
    while (port := servers.free_port()) > 55535:
        pass
    return port


def _places(ports: list[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)


def write_users(folder: Path) -> Path:
    """Write the users that the chart ships, with passwords."""
    text = USERS.read_text()
    for user, password in PASSWORDS.items():
        text = text.replace(
            f"user {user} on >{redis_acl.PLACEHOLDER} ", f"user {user} on >{password} "
        )
    path = folder / "users.acl"
    path.write_text(text)
    return path


@dataclass(frozen=True)
class TlsFiles:
    """An authority, and what it has signed: one certificate for the server and one for a client."""

    ca: Path
    cert: Path
    key: Path


def write_certificates(folder: Path) -> TlsFiles:
    files = TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    ca = _certificate(ca_name, ca_name, ca_key, ca_key, is_authority=True)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")])
    cert = _certificate(name, ca_name, key, ca_key, is_authority=False)
    files.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    files.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def _certificate(
    name: x509.Name, issuer: x509.Name, key: Any, issuer_key: Any, *, is_authority: bool
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


@contextmanager
def tls_proxy(target_port: int, files: TlsFiles) -> Iterator[int]:
    """End TLS before a Redis that cannot; whoever comes must show a certificate of the authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.ca))
    context.load_cert_chain(files.cert, files.key)
    context.verify_mode = ssl.CERT_REQUIRED
    port = servers.free_port()
    started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]]
    started = queue.SimpleQueue()

    async def serve() -> None:
        stop = asyncio.Event()
        server = await asyncio.start_server(
            lambda r, w: _forward(r, w, target_port), "127.0.0.1", port, ssl=context
        )
        started.put((asyncio.get_running_loop(), stop))
        async with server:
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    loop, stop = started.get(timeout=30)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=30)


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target_port: int
) -> None:
    back_reader, back_writer = await asyncio.open_connection("127.0.0.1", target_port)
    try:
        await asyncio.gather(_pump(reader, back_writer), _pump(back_reader, writer))
    finally:
        for end in (writer, back_writer):
            end.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()
