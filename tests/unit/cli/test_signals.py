"""Interrupts that tear down in peace."""

import signal

import pytest
from loraland_cli.signals import interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_interrupts_and_later_ones_do_not(number: signal.Signals) -> None:
    """A second Ctrl-C does not break the tear-down of the first."""
    torn_down = False
    with interruptible():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            signal.raise_signal(number)
            torn_down = True

    assert torn_down


def test_ignored_signals_change_nothing() -> None:
    """A Ctrl-C that comes while everything is being stopped anyway is not needed."""
    # Whoever runs the tests in the background of a script has it ignored from the beginning.
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as interrupts:
        interrupts.ignore()
        signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) is before
