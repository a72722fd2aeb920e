"""Sentinel, Cluster, TLS and users: configuration, the same for the operator and for replicas."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis_servers
import servers
from loraland_core import keys, redis_acl, redis_connection
from loraland_core.errors import Unavailable
from loraland_core.redis_settings import RedisSettings
from loraland_inference.adapters.leases import Leases
from loraland_inference.adapters.uses import Uses
from redis_servers import PASSWORDS
from registry_parties import (
    BASE,
    build_record,
    converged,
    running_operator,
    running_replica,
    settings,
)

pytestmark = pytest.mark.slow

ONE, TWO = "default/one", "default/two"


async def shared_work(where: RedisSettings) -> dict[str, float]:
    """Take, prolong and give back a lease, and count uses; return the uses."""
    client = redis_connection.connect(where, client_name="test")
    try:
        leases = Leases(client, node="n1")
        token = await leases.take("d" * 64)
        assert token
        assert await leases.renew("d" * 64, token)
        assert await leases.release("d" * 64, token)
        uses = Uses(client, BASE, clock=lambda: 1.7e9)
        for _ in range(2):
            uses.count(ONE)
            await uses.flush()
        return await uses.read_top(10)
    finally:
        await client.aclose()


async def test_failover_by_sentinels_is_followed(tmp_path: Path) -> None:
    """The master dies under a reading replica: what it knows is served, and both find the next."""
    with redis_servers.sentinels(tmp_path) as land:
        where = settings(land.url)
        async with running_operator(where) as operator, running_replica(where) as replica:
            await converged(operator, replica, await operator.put(ONE, build_record()))
            uses = await shared_work(where)
            first = land.master_port()
            land.processes[first].kill()
            known = replica.digest(ONE)
            record = await operator.put(TWO, build_record("b" * 64))
            await converged(operator, replica, record)
            second = land.master_port()

            assert (known, replica.digest(TWO)) == ("a" * 64, "b" * 64)
            assert first != second
            assert uses == pytest.approx({ONE: 2})


async def test_switch_by_an_administrator_is_followed(tmp_path: Path) -> None:
    """The old master lives on as a replica: nobody stays behind with it."""
    with redis_servers.sentinels(tmp_path, num_sentinels=1) as land:
        where = settings(land.url)
        async with running_operator(where) as operator, running_replica(where) as replica:
            await converged(operator, replica, await operator.put(ONE, build_record()))
            first = land.master_port()
            with redis_servers.connect(land.sentinel_ports[0]) as sentinel:
                sentinel.execute_command("SENTINEL FAILOVER", redis_servers.SERVICE)
            while land.master_port() == first:
                pass
            record = await operator.put(TWO, build_record("b" * 64))
            await converged(operator, replica, record)

            assert set(replica.registry.records) == {ONE, TWO}


async def test_cluster_holds_all_keys_of_a_base_model_together(tmp_path: Path) -> None:
    """Three masters, one of them named: transactions, scans, scripts and streams all work."""
    with redis_servers.cluster(tmp_path) as url:
        where = settings(url)
        async with running_operator(where) as operator, running_replica(where) as replica:
            await converged(operator, replica, await operator.put(ONE, build_record()))
            await operator.registry.remove(BASE, ONE)
            operator.wanted.clear()
            record = await operator.put(TWO, build_record("b" * 64))
            await converged(operator, replica, record)

            assert set(replica.registry.records) == {TWO}
            assert await operator.replicas() == ["r0"]
            assert await shared_work(where) == pytest.approx({ONE: 2})


async def test_cluster_that_is_away_is_unavailable() -> None:
    """The Cluster client's own errors are outages as well."""
    where = settings(f"redis+cluster://127.0.0.1:{servers.free_port()}")
    async with running_operator(where) as operator, running_replica(where) as replica:
        with pytest.raises(Unavailable, match="does not answer"):
            await operator.replicas()
        assert not replica.registry.is_known


async def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    """Both check the server against the authority, and show a certificate of their own."""
    files = redis_servers.write_certificates(tmp_path)
    port = servers.free_port()
    with servers.redis_process(port), redis_servers.tls_proxy(port, files) as tls_port:
        url = f"rediss://127.0.0.1:{tls_port}"
        client = {"CERT_FILE": str(files.cert), "KEY_FILE": str(files.key)}
        where = settings(url, CA_FILE=str(files.ca), **client)
        async with running_operator(where) as operator, running_replica(where) as replica:
            record = await operator.put(ONE, build_record())
            await converged(operator, replica, record)
        strangers = [settings(url, **client), settings(url, CA_FILE=str(files.ca))]
        for stranger in strangers:
            async with running_operator(stranger) as operator:
                with pytest.raises(Unavailable):
                    await operator.replicas()

        assert replica.digest(ONE) == "a" * 64


@pytest.fixture
def port_with_users(tmp_path: Path) -> Iterator[int]:
    """A Redis with the users that the chart ships."""
    port = servers.free_port()
    with servers.redis_process(port, "--aclfile", str(redis_servers.write_users(tmp_path))):
        yield port


def of_operator(port: int) -> RedisSettings:
    return settings(f"redis://127.0.0.1:{port}", USER="operator", PASSWORD=PASSWORDS["operator"])


def of_replica(port: int) -> RedisSettings:
    logins = {"USER": "replica", "PASSWORD": PASSWORDS["replica"]}
    logins |= {"REGISTRY_USER": "registry", "REGISTRY_PASSWORD": PASSWORDS["registry"]}
    return settings(f"redis://127.0.0.1:{port}", **logins)


async def test_users_suffice_for_what_each_part_does(port_with_users: int) -> None:
    """Publishing, reading, beating, leases and uses work with the rights that the chart grants."""
    operators, replicas = of_operator(port_with_users), of_replica(port_with_users)
    async with running_operator(operators) as operator, running_replica(replicas) as replica:
        await converged(operator, replica, await operator.put(ONE, build_record()))
        await operator.registry.remove(BASE, ONE)
        operator.wanted.clear()
        await converged(operator, replica, await operator.put(TWO, build_record()))
        await replica.presence.leave()

        assert set(replica.registry.records) == {TWO}
        assert await shared_work(replicas) == pytest.approx({ONE: 2})


REGISTRY = [keys.adapters(BASE), keys.epoch(BASE), keys.changes(BASE)]
WRITES: dict[str, tuple[Any, ...]] = {
    "hset": ("HSET", keys.adapters(BASE), ONE, "{}"),
    "hdel": ("HDEL", keys.adapters(BASE), ONE),
    "xadd": ("XADD", keys.changes(BASE), "*", "adapter", ONE),
    "xtrim": ("XTRIM", keys.changes(BASE), "MAXLEN", 0),
    "set": ("SET", keys.epoch(BASE), "{}"),
    "set-hash": ("SET", keys.adapters(BASE), "{}"),
    "del": ("DEL", keys.adapters(BASE)),
    "unlink": ("UNLINK", keys.epoch(BASE)),
    "expire": ("EXPIRE", keys.adapters(BASE), 1),
    "rename": ("RENAME", keys.beat(BASE, "r0"), keys.adapters(BASE)),
    "copy": ("COPY", keys.beat(BASE, "r0"), keys.epoch(BASE)),
    "restore": ("RESTORE", keys.epoch(BASE), 0, "x"),
    "eval": ("EVAL", "return redis.call('DEL', KEYS[1])", 1, keys.adapters(BASE)),
    "eval-undeclared": ("EVAL", f"return redis.call('DEL', '{keys.adapters(BASE)}')", 0),
    "flush": ("FLUSHALL",),
    "swap": ("SWAPDB", 0, 1),
    "config": ("CONFIG", "SET", "maxmemory", "1"),
    "acl": ("ACL", "SETUSER", "replica", "allkeys", "allcommands"),
    "module": ("MODULE", "LOAD", "x.so"),
    "replicaof": ("REPLICAOF", "NO", "ONE"),
    "keys": ("KEYS", "*"),
}


@pytest.mark.parametrize("user", [redis_acl.REPLICA, redis_acl.REGISTRY])
async def test_no_user_of_a_replica_writes_the_registry(port_with_users: int, user: str) -> None:
    """Whatever a hostile replica tries with either of its passwords, the registry stands."""
    async with running_operator(of_operator(port_with_users)) as operator:
        await operator.put(ONE, build_record())
        client = redis.Redis(port=port_with_users, username=user, password=PASSWORDS[user])
        with client:
            answers = {name: _answer(client, *words) for name, words in WRITES.items()}

        assert {n: a for n, a in answers.items() if not re.search("permission|can't", a)} == {}
        assert await operator.registry.read_is_intact(BASE)


def _answer(client: Any, *words: Any) -> str:
    try:
        return f"done: {client.execute_command(*words)}"
    except redis.exceptions.ResponseError as error:
        return str(error)


async def test_writer_of_heartbeats_reads_no_registry(port_with_users: int) -> None:
    """Two users, because Redis 6.2 grants keys for reading and writing alike."""
    name, password = redis_acl.REPLICA, PASSWORDS[redis_acl.REPLICA]
    with redis.Redis(port=port_with_users, username=name, password=password) as client:
        for key in REGISTRY:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.get(key)


def test_nobody_gets_in_without_a_name(port_with_users: int) -> None:
    """The default user is off."""
    with (
        redis.Redis(port=port_with_users) as client,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        client.ping()


async def test_wrong_password_is_said_and_not_shown(port_with_users: int) -> None:
    """A wrong Secret is an outage with Redis's reason, and without the password."""
    url = f"redis://127.0.0.1:{port_with_users}"
    async with running_operator(settings(url, USER="operator", PASSWORD="hush-hush")) as operator:
        with pytest.raises(Unavailable, match=r"(?i)invalid username-password") as caught:
            await operator.replicas()

    assert "hush-hush" not in str(caught.value)
