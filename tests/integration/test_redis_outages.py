"""Whatever happens to Redis: what is known is served on, it is said, and all is well again after.

Both sides are real, the operator's and a replica's, and so is Redis.
"""

import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gate
import pytest
import redis_servers
import servers
from loraland_core import keys
from loraland_core.errors import Unavailable
from loraland_inference.adapters import registry_reader
from registry_parties import (
    BASE,
    Operator,
    Replica,
    build_record,
    converged,
    running_operator,
    running_replica,
    settings,
    until,
)

pytestmark = pytest.mark.slow

ONE, TWO = "default/one", "default/two"


class Server:
    """A Redis that can be stopped and started, with its own folder for dumps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = servers.free_port()
        self._stack = ExitStack()
        self.start()

    def start(self) -> None:
        process = servers.redis_process(self.port, "--dir", str(self.folder))
        self.process = self._stack.enter_context(process)

    def stop(self) -> None:
        self._stack.close()

    def command(self, *words: str) -> Any:
        with redis_servers.connect(self.port) as client:
            return client.execute_command(*words)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    yield found
    found.stop()


@pytest.fixture
async def operator(server: Server) -> AsyncIterator[Operator]:
    async with running_operator(settings(f"redis://127.0.0.1:{server.port}")) as found:
        yield found


@pytest.fixture
async def replica(server: Server, operator: Operator) -> AsyncIterator[Replica]:
    """A replica that knows one adapter."""
    record = await operator.put(ONE, build_record())
    async with running_replica(settings(f"redis://127.0.0.1:{server.port}")) as found:
        await converged(operator, found, record)
        yield found


async def test_redis_restarted_empty_is_unknown_and_filled_again(
    server: Server, operator: Operator, replica: Replica
) -> None:
    """Without the epoch nothing is unloaded; the operator publishes, and the replica comes back."""
    server.stop()
    server.start()
    await until(lambda: not replica.registry.is_known)
    known = replica.digest(ONE)
    with pytest.raises(Unavailable):
        replica.registry.find(TWO, lambda _: True)
    record = await operator.put(TWO, build_record("b" * 64))
    await converged(operator, replica, record)

    assert known == "a" * 64
    assert set(replica.registry.records) == {ONE, TWO}


async def test_redis_restarted_with_an_old_dump_is_not_believed(
    server: Server, operator: Operator, replica: Replica
) -> None:
    """What came after the dump stays known, until the operator has published again."""
    server.command("SAVE")
    record = await operator.put(TWO, build_record("b" * 64))
    await converged(operator, replica, record)
    server.process.kill()
    server.stop()
    server.start()
    await until(lambda: not replica.registry.is_known)
    known = replica.digest(TWO)
    await converged(operator, replica, record)

    assert known == "b" * 64
    assert set(replica.registry.records) == {ONE, TWO}


async def test_lost_last_write_is_written_again(
    server: Server, operator: Operator, replica: Replica
) -> None:
    """A failover may lose what came last, with the epoch unharmed: the operator sees it."""
    record = await operator.put(TWO, build_record("b" * 64))
    await converged(operator, replica, record)
    (newest, _), *_ = await operator.registry._client.xrevrange(keys.changes(BASE), count=1)
    server.command("HDEL", keys.adapters(BASE), TWO)
    server.command("XDEL", keys.changes(BASE), newest)
    is_intact = await operator.registry.read_is_intact(BASE)
    await operator.sweep()

    assert not is_intact
    assert await operator.registry.read_is_intact(BASE)
    assert server.command("HEXISTS", keys.adapters(BASE), TWO)
    await converged(operator, replica, record)


async def test_paused_redis_is_waited_for(
    server: Server, operator: Operator, replica: Replica
) -> None:
    """A Redis that hangs costs neither side more than its timeouts."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        await until(replica.is_down)
        known = replica.digest(ONE)
        with pytest.raises(Unavailable, match="does not answer"):
            await operator.registry.put(TWO, build_record())
    finally:
        server.process.send_signal(signal.SIGCONT)
    record = await operator.put(TWO, build_record("b" * 64))
    await converged(operator, replica, record)

    assert known == "a" * 64
    assert replica.digest(TWO) == "b" * 64


async def test_slow_redis_is_no_outage(server: Server, operator: Operator) -> None:
    """A fifth of a second each way delays, and breaks nothing."""
    slow = gate.Gate(server.port, delay_s=0.2)
    try:
        # A timeout that a busy machine does not reach either.
        where = settings(f"redis://127.0.0.1:{slow.port}", TIMEOUT_S="30")
        async with running_replica(where) as replica:
            record = await operator.put(ONE, build_record())
            await converged(operator, replica, record)
            changed = await operator.put(ONE, build_record("b" * 64))
            await converged(operator, replica, changed)

            assert replica.digest(ONE) == "b" * 64
            assert [link.num_failures for link in replica.links.values()] == [0, 0]
    finally:
        slow.stop()


def _fill_up(server: Server) -> Callable[[], None]:
    server.command("CONFIG", "SET", "maxmemory", "1")
    return lambda: server.command("CONFIG", "SET", "maxmemory", "0")


def _demote(server: Server) -> Callable[[], None]:
    server.command("REPLICAOF", "127.0.0.1", str(servers.free_port()))
    return lambda: server.command("REPLICAOF", "NO", "ONE")


def _lose_disk(server: Server) -> Callable[[], None]:
    gone = server.folder / "gone"
    gone.mkdir()
    server.command("CONFIG", "SET", "dir", str(gone))
    server.command("CONFIG", "SET", "save", "3600 1")
    shutil.rmtree(gone)
    with redis_servers.connect(server.port) as client:
        client.bgsave()
        while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
            pass
    return lambda: server.command("CONFIG", "SET", "save", "")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [(_fill_up, "maxmemory"), (_demote, "read only"), (_lose_disk, "MISCONF")],
    ids=["full", "readonly", "misconf"],
)
async def test_redis_that_refuses_writes_is_read_on(
    server: Server,
    operator: Operator,
    replica: Replica,
    break_it: Callable[[Server], Callable[[], None]],
    words: str,
) -> None:
    """The registry stays known; that this replica is not seen is said with Redis's own reason."""
    mend = break_it(server)
    await until(lambda: replica.links["presence"].problem)
    with pytest.raises(Unavailable, match=words):
        await operator.registry.put(TWO, build_record())
    state = (replica.registry.is_known, replica.digest(ONE))
    problem = replica.links["presence"].problem
    mend()
    record = await operator.put(TWO, build_record("b" * 64))
    await converged(operator, replica, record)

    assert state == (True, "a" * 64)
    assert words in problem


async def test_burst_of_changes_is_read_whole(
    operator: Operator, replica: Replica, server: Server
) -> None:
    """Whoever is behind more changes than it follows reads everything, and misses none."""
    number = registry_reader.MAX_CHANGES + 200
    with redis_servers.connect(server.port) as client, client.pipeline() as pipe:
        for index in range(number):
            record = build_record(revision=replica.registry.read_revision + index + 1)
            pipe.hset(keys.adapters(BASE), f"default/a{index}", record.to_json())
            fields = {"adapter": f"default/a{index}", "revision": str(record.revision)}
            pipe.xadd(keys.changes(BASE), fields)
        pipe.execute()
    await until(lambda: len(replica.registry) == number + 1)

    assert replica.registry.applied_revision == replica.registry.read_revision


async def test_redis_emptied_during_a_reading_loses_nothing(
    server: Server, operator: Operator, replica: Replica
) -> None:
    """Half a reading is none: what it lacks is not taken as gone."""
    records = {f"default/a{index}": build_record() for index in range(2000)}
    operator.wanted |= records
    server.command("DEL", keys.epoch(BASE))
    await operator.sweep()
    await until(lambda: len(replica.registry) == 2001)
    epoch = await replica.reader._redis.get(keys.epoch(BASE))
    scan = replica.reader._redis.hscan_iter

    async def scan_and_lose(*arguments: Any, **options: Any) -> AsyncIterator[Any]:
        async for item in scan(*arguments, **options):
            yield item
            server.command("FLUSHALL")

    replica.reader._redis.hscan_iter = scan_and_lose
    is_taken = await replica.reader._read_all(epoch)
    replica.reader._redis.hscan_iter = scan

    assert not is_taken
    assert len(replica.registry) == 2001


async def test_dead_replica_vanishes_within_its_ttl(
    server: Server, operator: Operator, replica: Replica
) -> None:
    """Nobody has to take a killed replica out: its beat is written with a TTL, and runs out."""
    async with running_replica(settings(f"redis://127.0.0.1:{server.port}"), "r1"):
        await until(lambda: _sees(operator, ["r0", "r1"]))
    remaining_ms = server.command("PTTL", keys.beat(BASE, "r1"))
    await until(lambda: _sees(operator, ["r0"]))

    assert remaining_ms <= keys.HEARTBEAT_TTL_S * 1000


async def test_leaving_replica_vanishes_at_once(
    server: Server, operator: Operator, replica: Replica
) -> None:
    """Beat, residency and place in the index go together."""
    async with running_replica(settings(f"redis://127.0.0.1:{server.port}"), "r1") as leaving:
        await until(lambda: _sees(operator, ["r0", "r1"]))
    second = Replica(settings(f"redis://127.0.0.1:{server.port}"), leaving.name)
    await second.presence.leave()
    await second.close()

    assert await operator.replicas() == ["r0"]
    assert server.command("EXISTS", keys.residency(BASE, "r1"), keys.beat(BASE, "r1")) == 0
    assert server.command("ZSCORE", keys.replicas(BASE), "r1") is None


async def _sees(operator: Operator, names: list[str]) -> bool:
    return sorted(await operator.replicas()) == names


async def test_record_of_a_newer_release_is_refused_by_name(
    server: Server, operator: Operator, replica: Replica
) -> None:
    """A newer major version is not guessed at: the adapter is rejected, and the others go on."""
    newer = build_record(revision=replica.registry.read_revision + 1).to_json()
    newer = newer.replace('"schemaVersion":1', '"schemaVersion":2,"colour":"blue"')
    server.command("HSET", keys.adapters(BASE), ONE, newer)
    revision = str(replica.registry.read_revision + 1)
    server.command("XADD", keys.changes(BASE), "*", "adapter", ONE, "revision", revision)
    told: dict[str, keys.Rejection] = {}

    async def is_told() -> bool:
        fleet = await operator.registry.read_fleet(BASE)
        told.update(fleet.beats[0].rejected if fleet.beats else {})
        return bool(told)

    await until(is_told)

    rejection = told[ONE]
    assert (rejection.reason, rejection.digest) == ("RecordUnreadable", "a" * 64)
    assert "schemaVersion 2 is newer than 1" in rejection.message
    record = await operator.put(ONE, build_record("b" * 64))
    await converged(operator, replica, record)
    assert replica.registry.rejections() == {}


async def test_epoch_of_a_newer_release_is_unknown_not_fatal(
    server: Server, operator: Operator, replica: Replica
) -> None:
    """A registry that this release cannot read is said, and read again when it can be."""
    server.command("SET", keys.epoch(BASE), '{"schemaVersion":2,"revision":1,"numAdapters":0}')
    await until(lambda: "schemaVersion 2" in replica.links["registry"].problem)
    known = replica.digest(ONE)
    record = await operator.put(TWO, build_record())
    await converged(operator, replica, record)

    assert known == "a" * 64
