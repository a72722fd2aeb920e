"""The admission of requests."""

import asyncio
from contextlib import suppress

import pytest
from loraland_core.errors import NotFound, Unavailable
from loraland_inference.failures import QueueFull
from loraland_inference.server_state import ServerState


def build_state(max_requests: int = 2) -> ServerState:
    return ServerState(
        base_model="tiny", replica="r", max_rank=16, version="0", max_requests=max_requests
    )


def test_admission_refuses_what_is_one_too_many() -> None:
    """The limit holds while the others are there, and the refused one does not count."""
    state = build_state()

    with state.admitted(), state.admitted():
        with pytest.raises(QueueFull), state.admitted():
            pass
        during = state.num_requests
    with state.admitted():
        after = state.num_requests

    assert (during, after, state.num_requests) == (2, 1, 0)


def test_admission_refuses_everything_while_draining() -> None:
    """Who comes now asks another replica."""
    state = build_state()
    state.is_draining = True

    with pytest.raises(Unavailable), state.admitted():
        pass


def test_state_is_idle_only_when_nobody_is_here() -> None:
    """A request that fails leaves as well."""
    state = build_state()

    with suppress(KeyError), state.admitted():
        during = state.idle.is_set()
        raise KeyError

    assert (during, state.idle.is_set()) == (False, True)


async def test_ended_request_raises_what_it_is_given() -> None:
    """Whatever it waits for; those of other adapters go on."""
    state = build_state()

    async def wait(adapter_id: str) -> str:
        try:
            with state.admitted(adapter_id):
                await asyncio.Event().wait()
        except NotFound as error:
            return str(error)
        return "not ended"

    tasks = [asyncio.create_task(wait(name)) for name in ("ns/a", "ns/b")]
    await asyncio.sleep(0)
    in_use = state.adapters_in_use
    num_ended = [state.end(NotFound, "ns/a") for _ in range(2)]
    first = await tasks[0]
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert (in_use, num_ended, first) == ({"ns/a", "ns/b"}, [1, 0], "ns/a")
    assert (tasks[1].cancelled(), state.num_requests) == (True, 0)
