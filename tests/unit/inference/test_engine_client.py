"""The front's end of the pipe, against a fake engine that crashes, hangs and refuses on demand."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import fake_engine
import pytest
from loraland_core.errors import ArtifactInvalid, InvalidInput, LoraLandError, Unavailable
from loraland_inference.engine_client import EngineClient, Ticket
from loraland_inference.failures import InternalFault, QueueFull
from waiting import until

COMMAND = (sys.executable, fake_engine.__file__)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[EngineClient]:
    """Run a client with the fake engine; ready when the block begins."""
    settings: dict[str, Any] = {"step_limit_s": 30.0, "start_limit_s": 30.0, "command": COMMAND}
    client = EngineClient({}, **settings | options)
    task = asyncio.create_task(client.run())
    try:
        await ready(client)
        yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ready(client: EngineClient) -> None:
    for _ in range(600):
        if client.is_ready:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("the fake engine did not start")


def ask(client: EngineClient, text: str) -> Ticket:
    request = {"type": "generate", "adapter": "", "input": {"text": text}}
    return client.generate(request, on_end=lambda: None)


async def answer(ticket: Ticket) -> list[Any]:
    """Return the outputs to the last, which may be an error."""
    found: list[Any] = []
    while not found or not (isinstance(found[-1], LoraLandError) or "finish" in found[-1]):
        found.append(await asyncio.wait_for(ticket.outputs.get(), 30))
    return found


async def test_outputs_reach_their_own_request_in_order() -> None:
    """Two requests in flight do not mix, and each ends once."""
    async with running() as client:
        tickets = [ask(client, "one"), ask(client, "two")]
        answers = [await answer(t) for t in tickets]

    assert ["".join(o["text"] for o in a) for a in answers] == ["so one", "so two"]
    assert all(t.ended.is_set() for t in tickets)


async def test_refusal_carries_its_field() -> None:
    """What the engine refuses is the caller's fault, by field."""
    async with running() as client:
        (error,) = await answer(ask(client, "refuse"))

    assert isinstance(error, InvalidInput)
    assert (error.field, error.reason, str(error)) == ("input", "X", "input: no")


async def test_request_meets_a_full_queue_and_is_told_when_to_come_back() -> None:
    """Not the caller's fault: it may try again."""
    async with running() as client:
        (error,) = await answer(ask(client, "full"))

    assert isinstance(error, QueueFull)
    assert error.retry_after_s == 1.0


async def test_client_knows_what_the_engine_says_of_itself() -> None:
    """With each step, for the metrics."""
    async with running() as client:
        await answer(ask(client, "one"))

        assert (client.stat("num_running"), client.stat("num_waiting")) == (1, 0)


async def test_cancelled_request_ends_when_the_engine_has_let_go() -> None:
    """The ticket ends with the engine's last word, not with the wish to cancel."""
    ended: list[str] = []
    async with running() as client:
        request = {"type": "generate", "adapter": "", "input": {"text": "wait"}}
        ticket = client.generate(request, on_end=lambda: ended.append("now"))
        client.cancel(ticket)
        before = list(ended)
        await asyncio.wait_for(ticket.ended.wait(), 10)

    assert (before, ended, client.num_requests) == ([], ["now"], 0)


@pytest.mark.parametrize("how", ["crash", "hang"])
async def test_engine_that_fails_is_started_again(how: str) -> None:
    """Its requests are Unavailable, its slots are lost, and the next request is answered."""
    events: list[str] = []
    async with running(
        step_limit_s=1.0 if how == "hang" else 30.0,
        on_up=lambda _: events.append("up"),
        on_down=lambda: events.append("down"),
    ) as client:
        (error,) = await answer(ask(client, how))
        await ready(client)
        after = await answer(ask(client, "again"))

    assert isinstance(error, Unavailable)
    assert after[-1]["finish"] == "stop"
    assert (events[:3], client.num_restarts) == (["up", "down", "up"], 1)


@pytest.mark.parametrize("kind", ["load", "pack", "tokenize", "generate"])
async def test_engine_whose_steps_hide_a_stuck_command_is_started_again(kind: str) -> None:
    """Other requests are answered all the while, and the command's caller does not wait for ever."""

    async def generate(client: EngineClient) -> None:
        (error,) = await answer(ask(client, "stuck"))
        assert isinstance(error, Unavailable)
        raise error

    async with running(step_limit_s=1.0) as client:
        calls = {
            "load": lambda: client.load("d", "stuck"),
            "pack": lambda: client.pack("d", "/folder", "stuck"),
            "tokenize": lambda: client.tokenize({"text": "stuck"}),
            "generate": lambda: generate(client),
        }
        stuck: asyncio.Task[object] = asyncio.create_task(calls[kind]())
        finishes = []
        while not stuck.done() and len(finishes) < 100:
            with suppress(Unavailable):
                finishes.append((await answer(ask(client, "one")))[-1])
            await asyncio.sleep(0.1)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(stuck, 10)

    assert "finish" in finishes[0]
    assert client.num_restarts >= 1


async def test_engine_is_started_again_when_the_caller_of_a_stuck_command_has_gone() -> None:
    """Its thread hangs on whether or not somebody waits."""
    async with running(step_limit_s=1.0) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.tokenize({"text": "stuck"}), 0.1)
        await until(lambda: client.num_restarts == 1, limit_s=30)


async def test_request_that_the_engine_fails_at_is_told_where_to_look() -> None:
    """The id in the message is the one in the log, and nothing else is said."""
    async with running() as client:
        ticket = ask(client, "broken")
        (error,) = await answer(ticket)

    assert isinstance(error, InternalFault)
    assert str(error) == f"internal error, see the server's log with request id {ticket.id}"


async def test_request_is_unavailable_while_no_engine_runs() -> None:
    """Before the engine is ready a request is not queued but told to come back."""
    client = EngineClient({}, step_limit_s=1.0, start_limit_s=1.0, command=COMMAND)

    with pytest.raises(Unavailable):
        ask(client, "early")


async def test_pack_tells_the_size_or_why_not() -> None:
    """A load and a packing of one artifact may be owed at once; each gets its own answer."""
    async with running() as client:
        size_bytes, _ = await asyncio.gather(
            client.pack("d1", "/good", "/packed"), client.load("d1", "/good")
        )
        with pytest.raises(ArtifactInvalid) as caught:
            await client.pack("d2", "/bad", "/packed")

    assert (size_bytes, caught.value.reason) == (7, "Bad")


async def test_load_tells_why_an_adapter_is_refused() -> None:
    """A bad adapter is ArtifactInvalid with the engine's reason; a good one is loaded."""
    async with running() as client:
        await client.load("d1", "/good")
        with pytest.raises(ArtifactInvalid) as caught:
            await client.load("d2", "/bad")
        token_ids = await client.tokenize({"text": "x"})

    assert (caught.value.reason, token_ids) == ("Bad", [1, 2])
