"""Expected failures end in one sentence."""

import errno

import pytest
from loraland_cli import console
from loraland_cli.console import Failure
from loraland_core.errors import InvalidInput


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        pytest.param(Failure("it failed", exit_code=4), 4, "it failed", id="failure"),
        pytest.param(InvalidInput("is wrong", field="--x"), 1, "--x: is wrong", id="input"),
        pytest.param(OSError(errno.ENOSPC, "full", "/d"), 1, "the disk is full (/d)", id="disk"),
        pytest.param(OSError(errno.ENETUNREACH, "x"), 1, "no network", id="network"),
        pytest.param(PermissionError(errno.EACCES, "x", "/r"), 1, "no permission", id="permission"),
        pytest.param(KeyboardInterrupt(), 130, "interrupted", id="interrupt"),
    ],
)
def test_failures_become_sentences(
    error: BaseException, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person reads what is wrong and what to do, and no traceback."""
    with pytest.raises(SystemExit) as ended, console.failures_as_sentences():
        raise error
    said = capsys.readouterr().err

    assert (ended.value.code, words in said, "Traceback" in said) == (status, True, False)


def test_failure_shows_the_end_of_a_log_first(capsys: pytest.CaptureFixture[str]) -> None:
    """The log's last words stand above the sentence."""
    with pytest.raises(SystemExit), console.failures_as_sentences():
        raise Failure("station job failed", log="last words\n")
    lines = capsys.readouterr().err.splitlines()

    assert lines == ["last words", "error: station job failed"]


def test_our_own_mistakes_keep_their_traceback() -> None:
    """What nobody expected is not dressed up as a sentence."""
    with pytest.raises(ZeroDivisionError), console.failures_as_sentences():
        _ = 1 / 0
