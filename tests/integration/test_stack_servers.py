"""The laptop's S3 and Redis servers, as the stack starts them."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from loraland_core.store import Store, StoreConfig
from loraland_local import addresses, processes, redisserver
from redis.backoff import NoBackoff
from redis.retry import Retry

HOST = "127.0.0.1"
CREDENTIALS = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.05)


def start_store(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    arguments = {"host": HOST, "port": port, "folder": folder / "s3", "bucket": "laptop"}
    options = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    process = processes.start(
        [sys.executable, "-m", "loraland_local.objectstore", *options, "--ready-file", str(ready)],
        env=processes.environment(folder),
        log=folder / "log",
    )
    wait_until(ready.exists)
    return process


def open_store(port: int) -> Store:
    config = StoreConfig(bucket="laptop", endpoint_url=f"http://{HOST}:{port}")
    return Store(config, credentials=CREDENTIALS)


def test_object_store_keeps_objects_over_a_restart(tmp_path: Path) -> None:
    """What was written is there again, as a file meanwhile; what was deleted is not."""
    port = addresses.free_port(HOST, 19000)
    first = start_store(tmp_path, port)
    store = open_store(port)
    store.write("adapters/x/kept.json", b"{}")
    store.write("adapters/y/dropped.json", b"{}")
    wait_until((tmp_path / "s3/laptop/adapters/y/dropped.json").exists)
    store.delete_prefix("adapters/y/")
    store.write("late", b"last words")
    processes.stop(first, grace_s=10)
    second = start_store(tmp_path, port)
    found = {obj.key: store.read(obj.key) for obj in store.find_objects("")}
    processes.stop(second, grace_s=10)
    store.close()

    assert found == {"adapters/x/kept.json": b"{}", "late": b"last words"}


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("redis")
    port = addresses.free_port(HOST, 16379)
    access_list = folder / "users.acl"
    access_list.write_text(
        redisserver.build_access_list(operator_password="o", replica_password="r")
    )
    command = redisserver.build_command(
        host=HOST, port=port, folder=folder, access_list=access_list
    )
    process = processes.start(command, env=processes.environment(folder), log=folder / "log")
    wait_until(lambda: not addresses.is_free(HOST, port))
    yield port
    processes.stop(process, grace_s=10)


def connect(port: int, user: str, password: str) -> "redis.Redis":
    url = redisserver.build_url(HOST, port, user=user, password=password)
    return redis.Redis.from_url(url, decode_responses=True)


def test_redis_lets_the_operator_publish_and_replicas_read(redis_port: int) -> None:
    """The registry flows from the operator to the replicas."""
    with connect(redis_port, "operator", "o") as operator:
        operator.hset("ll:v1:{m}:adapters", "default/a", "record")
        operator.xadd("ll:v1:{m}:changes", {"adapter": "default/a"}, maxlen=10)
    with connect(redis_port, "replica", "r") as replica:
        replica.set("ll:v1:{m}:beat:one", "alive", ex=8)
        replica.zadd("ll:v1:{m}:replicas", {"one": 1})
    with connect(redis_port, "registry", "r") as registry:
        changes = registry.xread({"ll:v1:{m}:changes": "0"})
        record = registry.hmget("ll:v1:{m}:adapters", "default/a")[0]

    assert (record, len(changes)) == ("record", 1)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("HSET", "ll:v1:{m}:adapters", "default/a", "forged"), id="record"),
        pytest.param(("XADD", "ll:v1:{m}:changes", "*", "adapter", "x"), id="change"),
        pytest.param(("FLUSHALL",), id="flush"),
        pytest.param(("SET", "other", "x"), id="foreign-key"),
        pytest.param(("CONFIG", "GET", "*"), id="configuration"),
    ],
)
@pytest.mark.parametrize("user", ["replica", "registry"])
def test_redis_refuses_what_replicas_may_not(
    redis_port: int, user: str, command: tuple[str, ...]
) -> None:
    """A replica cannot change the registry or the server, whichever of its users it takes."""
    with connect(redis_port, user, "r") as replica, pytest.raises(redis.ResponseError):
        replica.execute_command(*command)


def test_redis_refuses_the_default_user(redis_port: int) -> None:
    """Nobody gets in without a name and a password."""
    once = Retry(NoBackoff(), 0)
    with (
        redis.Redis(host=HOST, port=redis_port, retry=once) as nobody,
        pytest.raises(redis.RedisError),
    ):
        nobody.ping()
