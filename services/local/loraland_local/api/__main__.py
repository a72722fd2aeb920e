"""Starts the embedded API: `python -m loraland_local.api --state DIR --token-file FILE`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import fcntl
import logging
import secrets
import signal
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from . import certificates, kubeconfig
from .cluster import Cluster
from .server import Server

SHUTDOWN_TIMEOUT_S = 1.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loraland_local.api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one")
    parser.add_argument("--state", type=Path, required=True, help="directory for all state")
    parser.add_argument("--token-file", type=Path, help="the admin's token; made if it is missing")
    parser.add_argument("--audit-log-path", type=Path, help="file for a JSON line a request")
    return parser.parse_args()


def _admin_token(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text().strip()


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the state directory; raises BlockingIOError while another server does."""
    with (state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


async def serve(
    *, host: str, port: int, state: Path, token_file: Path, audit_log: Path | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; prints one line when ready."""
    token = _admin_token(token_file)
    authority, certificate, key = certificates.ensure(state / "pki", host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    cluster = Cluster(state, admin_token=token)
    server = Server(cluster, address=f"{host}:{port}", audit_log=audit_log)
    runner = web.AppRunner(
        server.application(),
        access_log=None,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        handler_cancellation=True,  # a watch ends when its client goes away
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=context)
    await site.start()
    bound = runner.addresses[0][1]
    url = f"https://{host}:{bound}"
    kubeconfig.write(state / "kubeconfig", url=url, authority=authority.read_bytes(), token=token)
    print(f"ready {url} kubeconfig={state / 'kubeconfig'}", flush=True)  # noqa: T201 - the ready line
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def main() -> int:
    arguments = _arguments()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    token_file = arguments.token_file or arguments.state / "admin.token"
    try:
        arguments.state.mkdir(parents=True, exist_ok=True)
        with _alone(arguments.state):
            asyncio.run(
                serve(
                    host=arguments.host,
                    port=arguments.port,
                    state=arguments.state,
                    token_file=token_file,
                    audit_log=arguments.audit_log_path,
                )
            )
    except BlockingIOError:
        sys.stderr.write(
            f"another server uses {arguments.state}; stop it or choose another --state\n"
        )
        return 1
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        sys.stderr.write(
            f"port {arguments.port} on {arguments.host} is taken; stop what uses it or choose"
            " another with --port\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
