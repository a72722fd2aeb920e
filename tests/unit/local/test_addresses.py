"""Address blocks and ports of a stack."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from loraland_core.errors import InvalidInput
from loraland_local import addresses


@contextlib.contextmanager
def listener(host: str, port: int = 0) -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind((host, port))
        taken.listen(1)
        yield taken.getsockname()[1]


def test_claim_block_gives_two_stacks_different_blocks(tmp_path: Path) -> None:
    """A second claim for the same directory, as a hash collision would make it, goes elsewhere."""
    first = addresses.claim_block(tmp_path)
    second = addresses.claim_block(tmp_path)
    hosts = {first.host, second.host}
    first.release()
    second.release()

    assert len(hosts) == 2


def test_claim_block_returns_the_same_block_for_a_directory_later(tmp_path: Path) -> None:
    """A directory's stack finds its addresses again after a restart."""
    first = addresses.claim_block(tmp_path)
    first.release()
    again = addresses.claim_block(tmp_path)
    again.release()

    assert again.host == first.host


def test_claim_block_shares_the_one_address_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where 127.x.0.1 cannot be bound, everything lives on 127.0.0.1."""

    def refuse(host: str, port: int) -> socket.socket:
        raise OSError(99, f"Cannot assign requested address {host}:{port}")

    monkeypatch.setattr(addresses, "_listening", refuse)
    block = addresses.claim_block(tmp_path)

    assert (block.host, block.is_shared) == ("127.0.0.1", True)


def test_free_port_skips_ports_that_are_taken() -> None:
    """The next free port follows a taken one."""
    with listener("127.0.0.1") as taken:
        chosen = addresses.free_port("127.0.0.1", taken)

    assert chosen > taken


def test_free_port_skips_ports_promised_to_others() -> None:
    """A port that another server of the stack will take is not free."""
    with listener("127.0.0.1") as port:
        free = port + 1
    chosen = addresses.free_port("127.0.0.1", free, taken=[free])

    assert chosen > free


def test_demanded_port_names_the_option_when_the_port_is_taken() -> None:
    """Somebody who asked for a port by name is told which option asked for what."""
    with listener("127.0.0.1") as taken, pytest.raises(InvalidInput) as failure:
        addresses.demanded_port("127.0.0.1", taken, option="--api-port")

    assert str(failure.value).startswith(f"--api-port: port {taken} on 127.0.0.1 is already taken")
