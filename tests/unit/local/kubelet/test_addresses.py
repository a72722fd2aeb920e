"""Addresses for pods."""

import ipaddress

import pytest
from loraland_local.kubelet import addresses
from loraland_local.kubelet.addresses import AddressPool

BLOCK = ipaddress.IPv4Network("127.211.0.0/16")


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> AddressPool:
    monkeypatch.setattr(addresses, "can_bind", lambda _: True)
    return AddressPool(BLOCK)


def test_each_pod_gets_its_own_address(pool: AddressPool) -> None:
    """Addresses differ, are not used again at once, and leave the first ones to servers."""
    first, second = pool.take(), pool.take()
    pool.give_back(first)

    assert (pool.host_address, first, second, pool.take()) == (
        "127.211.0.1",
        "127.211.1.1",
        "127.211.1.2",
        "127.211.1.3",
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param("127.211.7.7", "127.211.7.7", id="free"),
        pytest.param("127.211.1.1", "127.211.1.2", id="taken"),
        pytest.param("127.99.0.5", "127.211.1.2", id="of-another-block"),
    ],
)
def test_earlier_address_is_kept_when_it_can_be(
    pool: AddressPool, wanted: str, expected: str
) -> None:
    """A pod that is taken up again keeps its address unless somebody else has it."""
    pool.take()

    assert pool.take(wanted) == expected


def test_everybody_shares_one_address_where_the_system_knows_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without more loopback addresses there is 127.0.0.1."""
    monkeypatch.setattr(addresses, "can_bind", lambda _: False)
    shared = AddressPool(BLOCK)

    assert {shared.host_address, shared.take(), shared.take()} == {"127.0.0.1"}
