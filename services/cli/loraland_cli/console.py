"""What the command prints: consoles, and expected failures as one sentence each."""

import contextlib
import errno
import sys
from collections.abc import Iterator

from loraland_core.errors import LoraLandError
from rich.console import Console
from rich.markup import escape

WIDTH_WITHOUT_TERMINAL = 120
EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130

# Rich takes 80 columns where there is no terminal, too few for a table of answers.
out = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)
err = Console(
    stderr=True,
    width=None if sys.stderr.isatty() else WIDTH_WITHOUT_TERMINAL,
    highlight=False,
    soft_wrap=True,
)


class Failure(LoraLandError):
    """An expected failure: a sentence, and where it helps the end of a log."""

    def __init__(self, message: str, *, log: str = "", exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.log = log
        self.exit_code = exit_code


@contextlib.contextmanager
def failures_as_sentences() -> Iterator[None]:
    """End the command with a sentence instead of a traceback for what can be expected to fail."""
    try:
        yield
    except Failure as failure:
        fail(str(failure), log=failure.log, exit_code=failure.exit_code)
    except LoraLandError as error:
        fail(str(error))
    except KeyboardInterrupt:
        err.print("interrupted")
        raise SystemExit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        raise SystemExit(EXIT_FAILURE) from None
    except OSError as error:
        fail(describe_os_error(error))


def fail(message: str, *, log: str = "", exit_code: int = EXIT_FAILURE) -> None:
    if log:
        err.print("[dim]" + escape(log.rstrip()) + "[/dim]")
    err.print(f"[bold red]error:[/bold red] {escape(message)}")
    raise SystemExit(exit_code)


def describe_os_error(error: OSError) -> str:
    """Return a sentence that says what to do about a failure of the system."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}: free some space and try again"
    if error.errno in (errno.EACCES, errno.EROFS):
        return f"no permission to write{where}: choose another directory with --state"
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return "no network: check the connection and try again"
    return f"{error.strerror or error}{where}"
