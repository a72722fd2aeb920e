"""The client over several replicas: who is asked, who next, and when it gives up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from loraland_client import CallFailed, Client, retries
from loraland_client.failures import Details
from loraland_client.replicas import Replicas
from loraland_core.rpc import inference_pb2 as pb
from loraland_core.rpc import inference_pb2_grpc

Code = grpc.StatusCode


class FakeReplica(inference_pb2_grpc.InferenceServicer):
    """Says what it is told to say of itself, and answers with its name, or with a status."""

    def __init__(self, name: str, **info: Any) -> None:
        self.name = name
        self.info = info
        self.faults: list[grpc.StatusCode] = []
        self.num_asked = 0
        self.num_looks = 0
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def GetServerInfo(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's name)
        self.num_looks += 1
        return pb.GetServerInfoResponse(replica=self.name, **self.info)

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's name)
        self.num_asked += 1
        if self.faults:
            await context.abort(self.faults.pop(0), "scripted")
        return pb.GenerateResponse(text=self.name)

    async def GenerateStream(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's name)
        self.num_asked += 1
        if self.faults:
            await context.abort(self.faults.pop(0), "scripted")
        yield pb.GenerateStreamResponse(text=self.name)


@asynccontextmanager
async def fleet(*replicas: FakeReplica) -> AsyncIterator[list[str]]:
    async with AsyncExitStack() as stack:
        for replica in replicas:
            server = grpc.aio.server()
            inference_pb2_grpc.add_InferenceServicer_to_server(replica, server)
            replica.port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
        yield [replica.address for replica in replicas]


@pytest.mark.parametrize(
    ("there", "elsewhere"),
    [
        ({"resident": ["ns/a"]}, {}),
        ({}, {"draining": True}),
        ({}, {"rejected": ["ns/a"]}),
        ({}, {"queue_depth": 50}),
    ],
    ids=["resident", "other drains", "other refuses", "other is busy"],
)
async def test_request_goes_to_the_replica_that_fits(
    there: dict[str, Any], elsewhere: dict[str, Any]
) -> None:
    """What replicas say of themselves decides, whatever their order."""
    one, two = FakeReplica("one", **there), FakeReplica("two", **elsewhere)
    async with fleet(one, two) as addresses:
        found = set()
        for given in (addresses, addresses[::-1]):
            async with Client(given, "t") as client:
                found.add((await client.generate(prompt="x", adapter="ns/a")).text)

    assert found == {"one"}


async def test_adapter_stays_where_it_was_answered() -> None:
    """One that is nowhere has one home, and requests one after another all go there."""
    replicas = [FakeReplica(f"r{i}") for i in range(3)]
    async with fleet(*replicas) as addresses, Client(addresses, "t") as client:
        found = {(await client.generate(prompt="x", adapter="ns/a")).text for _ in range(6)}

    assert len(found) == 1


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.CANCELLED])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_call_that_fails_goes_to_another_replica(
    is_stream: bool, code: grpc.StatusCode
) -> None:
    """At once, and each is asked once; a server that is stopped cancels what it has."""
    one, two = FakeReplica("one", resident=["ns/a"]), FakeReplica("two")
    one.faults = [code] * 9
    async with fleet(one, two) as addresses, Client(addresses, "t") as client:
        if is_stream:
            text = "".join([p.text async for p in client.stream(prompt="x", adapter="ns/a")])
        else:
            text = (await client.generate(prompt="x", adapter="ns/a")).text

    assert (text, one.num_asked, two.num_asked) == ("two", 1, 1)


async def test_replica_that_is_not_there_is_passed_over() -> None:
    """Of two addresses one has nobody behind it: every call is answered by the other."""
    one, gone = FakeReplica("one"), FakeReplica("gone")
    async with fleet(one):
        async with fleet(gone):
            addresses = [gone.address, one.address]
        async with Client(addresses, "t") as client:
            found = {(await client.generate(prompt="x", adapter=f"ns/{i}")).text for i in range(9)}

    assert found == {"one"}


async def test_all_are_asked_again_after_a_pause_when_each_has_failed() -> None:
    """The next round begins with the best one."""
    one, two = FakeReplica("one"), FakeReplica("two")
    one.faults, two.faults = [Code.UNAVAILABLE], [Code.UNAVAILABLE]
    async with fleet(one, two) as addresses, Client(addresses, "t") as client:
        reply = await client.generate(prompt="x")

    assert reply.text in {"one", "two"}
    assert one.num_asked + two.num_asked == 3


async def test_name_resolves_to_its_replicas() -> None:
    """A name is followed to the addresses behind it."""
    one = FakeReplica("one")
    async with fleet(one), Client(f"dns:///localhost:{one.port}", "t") as client:
        reply = await client.generate(prompt="x", timeout_s=60)

    assert reply.text == "one"


async def test_name_without_addresses_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure says what to look for."""
    loop = asyncio.get_running_loop()

    async def nothing(*_: Any, **__: Any) -> list[Any]:
        raise OSError("Name or service not known")

    monkeypatch.setattr(loop, "getaddrinfo", nothing)
    async with Client("dns:///replicas.invalid:8500", "t", max_attempts=2) as client:
        with pytest.raises(CallFailed, match="resolves to no address") as caught:
            await client.generate(prompt="x")

    assert caught.value.code == Code.UNAVAILABLE


async def test_replicas_follow_a_name_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """New addresses are used, and gone ones are not; a failing look-up changes nothing."""
    loop = asyncio.get_running_loop()
    answers: list[list[str]] = [["10.0.0.1", "10.0.0.2"], [], ["10.0.0.2", "10.0.0.3"]]

    async def resolve(_: str, port: int, **__: Any) -> list[Any]:
        ips = answers.pop(0)
        if not ips:
            raise OSError("again later")
        return [(0, 0, 0, "", (ip, port)) for ip in ips]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    replicas = Replicas(["dns:///replicas:1"], tuple)
    seen = []
    for _ in range(3):
        await replicas._resolve()
        seen.append(sorted(replicas._by_address))
    await replicas.close()

    two = ["10.0.0.1:1", "10.0.0.2:1"]
    assert seen == [two, two, ["10.0.0.2:1", "10.0.0.3:1"]]


@pytest.mark.parametrize(
    "addresses",
    [[], ["dns:///replicas"], ["dns:///replicas:grpc"]],
    ids=["none", "no-port", "no-number"],
)
def test_client_wants_addresses_with_ports(addresses: list[str]) -> None:
    """A mistake of the program is told at once."""
    with pytest.raises(ValueError, match="addresses"):
        Replicas(addresses, tuple)


@pytest.mark.parametrize(
    ("attempt", "told_s", "least_s", "most_s"),
    [(1, None, 0.2, 0.3), (3, None, 0.8, 1.2), (1, 2.0, 2.0, 3.0), (30, 99.0, 10.0, 15.0)],
)
def test_delay_is_what_the_server_said_or_grows(
    attempt: int, told_s: float | None, least_s: float, most_s: float
) -> None:
    """With jitter on top, and bounded."""
    failure = CallFailed(Code.RESOURCE_EXHAUSTED, "", Details(retry_after_s=told_s))

    found = [retries.delay_s(failure, attempt) for _ in range(50)]
    assert least_s <= min(found) <= max(found) <= most_s


def test_budget_ends_and_is_earned_again() -> None:
    """Ten successes pay for one more attempt."""
    budget = retries.Budget(2)
    spent = [budget.spend() for _ in range(3)]
    # One more than ten: tenths do not add up to a whole in binary.
    for _ in range(11):
        budget.earn()

    assert (spent, budget.spend(), budget.spend()) == ([True, True, False], True, False)


async def test_calls_give_up_when_the_budget_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service in trouble is not asked several times by everybody."""
    monkeypatch.setattr(retries, "FIRST_DELAY_S", 0.0)
    one = FakeReplica("one")
    one.faults = [Code.UNAVAILABLE] * 200
    async with fleet(one) as addresses, Client(addresses, "t", max_attempts=99) as client:
        client._budget = retries.Budget(4)
        for _ in range(2):
            with pytest.raises(CallFailed):
                await client.generate(prompt="x")

    assert one.num_asked == 6
