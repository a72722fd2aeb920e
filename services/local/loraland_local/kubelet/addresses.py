"""An address of its own for each pod, out of the loopback network."""

import ipaddress
import socket

_FIRST_POD_OFFSET = 257
"""The first 256 addresses of the block are for the laptop's own servers."""

SHARED_ADDRESS = "127.0.0.1"


class AddressPool:
    """Hands out addresses; where the system allows only one, everybody gets that one."""

    def __init__(self, network: ipaddress.IPv4Network) -> None:
        self._network = network
        self._is_usable = can_bind(str(network.network_address + _FIRST_POD_OFFSET))
        self._next = _FIRST_POD_OFFSET
        self._used: set[str] = set()

    @property
    def host_address(self) -> str:
        return str(self._network.network_address + 1) if self._is_usable else SHARED_ADDRESS

    def take(self, wanted: str = "") -> str:
        """Return a free address, the wanted one if it is free and ours."""
        if not self._is_usable:
            return SHARED_ADDRESS
        if wanted and wanted not in self._used and self._is_ours(wanted):
            self._used.add(wanted)
            return wanted
        span = self._network.num_addresses - _FIRST_POD_OFFSET - 1
        for _ in range(span):
            address = str(self._network.network_address + self._next)
            self._next += 1
            if self._next >= self._network.num_addresses - 1:
                self._next = _FIRST_POD_OFFSET
            if address not in self._used:
                self._used.add(address)
                return address
        raise ValueError(f"no free pod address is left in {self._network}")

    def give_back(self, address: str) -> None:
        self._used.discard(address)

    def _is_ours(self, address: str) -> bool:
        return ipaddress.ip_address(address) in self._network


def can_bind(address: str) -> bool:
    """Say whether a server may listen on the address (macOS knows only 127.0.0.1)."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
