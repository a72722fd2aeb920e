"""An outage is waited out, within bounds."""

import pytest
from loraland_core.errors import InvalidInput, Unavailable
from loraland_trainer import patience


class Upload:
    """Fails a number of times, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.waits_s: list[float] = []

    def __call__(self) -> str:
        if self._errors:
            raise self._errors.pop(0)
        return "done"

    def insist(self) -> str:
        return patience.insist(
            "the upload", self, attempts=4, sleep=self.waits_s.append, jitter=lambda: 0.5
        )


def test_waits_double_until_it_works() -> None:
    """Two failures, two waits, each shortened by the jitter."""
    upload = Upload(Unavailable("away"), Unavailable("away"))

    assert upload.insist() == "done"
    assert upload.waits_s == [1.5, 3.0]


def test_the_last_failure_is_the_callers() -> None:
    """After the last attempt nothing is hidden."""
    upload = Upload(*[Unavailable(f"away {n}") for n in range(9)])

    with pytest.raises(Unavailable, match="away 3"):
        upload.insist()

    assert len(upload.waits_s) == 3


def test_what_does_not_help_is_not_repeated() -> None:
    """A wrong bucket stays wrong."""
    upload = Upload(InvalidInput("no bucket"))

    with pytest.raises(InvalidInput):
        upload.insist()

    assert upload.waits_s == []
