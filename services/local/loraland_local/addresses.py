"""Addresses and ports of a stack, chosen so that two stacks never meet.

On Linux every 127.x.y.z is the machine itself: a stack takes one 127.B.0.0/16 for itself, its own
servers on 127.B.0.1 and its pods from 127.B.1.1 on. Elsewhere only 127.0.0.1 exists, and the ports
are what tells stacks apart.
"""

import contextlib
import dataclasses
import errno
import hashlib
import socket
from collections.abc import Iterable
from pathlib import Path

from loraland_core.errors import InvalidInput, Unavailable

# Held open by the supervisor on its first address: whoever has it owns the block.
CLAIM_PORT = 7390
_FIRST_BLOCK = 16
_NUM_BLOCKS = 200
_NEXT_PORTS = 200


@dataclasses.dataclass
class Block:
    """The addresses of one stack; ``claim`` keeps others away while it is open."""

    host: str
    pod_cidr: str
    claim: socket.socket | None = None

    @property
    def is_shared(self) -> bool:
        """Say whether pods have no addresses of their own."""
        return not self.pod_cidr

    def release(self) -> None:
        if self.claim is not None:
            self.claim.close()
            self.claim = None


def claim_block(state: Path) -> Block:
    """Take the address block that belongs to this directory, or the next free one."""
    start = int(hashlib.sha256(str(state).encode()).hexdigest(), 16) % _NUM_BLOCKS
    for offset in range(_NUM_BLOCKS):
        number = _FIRST_BLOCK + (start + offset) % _NUM_BLOCKS
        host = f"127.{number}.0.1"
        try:
            claim = _listening(host, CLAIM_PORT)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return Block(host="127.0.0.1", pod_cidr="")
            continue
        return Block(host=host, pod_cidr=f"127.{number}.0.0/16", claim=claim)
    raise Unavailable(
        f"port {CLAIM_PORT} is taken on all of {_NUM_BLOCKS} loopback addresses;"
        " stop what listens there, or other stacks"
    )


def free_port(host: str, preferred: int, *, taken: Iterable[int] = ()) -> int:
    """Return the preferred port or the next one that nobody listens on."""
    avoided = set(taken)
    for port in range(preferred, preferred + _NEXT_PORTS):
        if port not in avoided and is_free(host, port):
            return port
    raise Unavailable(
        f"ports {preferred} to {preferred + _NEXT_PORTS - 1} on {host} are all taken;"
        " stop what listens there"
    )


def demanded_port(host: str, port: int, *, option: str) -> int:
    """Return the port that somebody asked for by name, or say who asked for what in vain."""
    if not is_free(host, port):
        raise InvalidInput(
            f"port {port} on {host} is already taken; stop what listens there, name another one,"
            " or leave the option out to take the next free one",
            field=option,
            reason="PortTaken",
        )
    return port


def is_free(host: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        _listening(host, port).close()
        return True
    return False


def _listening(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener
