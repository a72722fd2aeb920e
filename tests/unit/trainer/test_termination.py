"""SIGTERM stops the pod at once, or after the step that is running."""

import signal
from collections.abc import Iterator

import pytest
from loraland_trainer.termination import Terminated, Terminator


@pytest.fixture
def terminator() -> Iterator[Terminator]:
    before = signal.getsignal(signal.SIGTERM)
    installed = Terminator()
    installed.install()
    yield installed
    signal.signal(signal.SIGTERM, before)


def test_signal_raises_at_once(terminator: Terminator) -> None:
    """Outside the training loop there is nothing worth finishing."""
    with pytest.raises(Terminated):
        signal.raise_signal(signal.SIGTERM)

    assert terminator.requested


def finish_step(terminator: Terminator, reached: list[str], error: Exception | None) -> None:
    """Be asked to stop in the middle of a deferred block."""
    with terminator.deferred():
        signal.raise_signal(signal.SIGTERM)
        reached.append("the end of the step")
        if error is not None:
            raise error


def test_signal_is_held_back_while_a_step_runs(terminator: Terminator) -> None:
    """The block runs to its end, then the request is honoured."""
    reached: list[str] = []

    with pytest.raises(Terminated):
        finish_step(terminator, reached, None)

    assert reached == ["the end of the step"]


def test_an_error_of_the_block_comes_first(terminator: Terminator) -> None:
    """What went wrong is not hidden by the request to stop."""
    with pytest.raises(ValueError, match="loss"):
        finish_step(terminator, [], ValueError("loss"))
