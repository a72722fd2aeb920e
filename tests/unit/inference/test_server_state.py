"""The admission of requests."""

from contextlib import suppress

import pytest
from loraland_core.errors import Unavailable
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
