"""The errors that cross a part's border, by what the caller can do about them.

LoraLandError
├── InvalidInput          fix it: names the field, what was found, what to do
│   └── ArtifactInvalid   fix it: an adapter's files are not what they should be
├── Unavailable           retry after ``retry_after_s``: an outside system does not answer
└── NotFound              give up, or make it first: the thing named is not there

A door (the one module that talks to an outside system) translates foreign errors into these.
"""


class LoraLandError(Exception):
    """Anything that a part of LoRA Land says is wrong."""


class InvalidInput(LoraLandError, ValueError):
    """Somebody's input is wrong; trying again does not help.

    ``reason`` is CamelCase for conditions; ``field`` is the path that the person wrote.
    """

    def __init__(self, message: str, *, field: str = "", reason: str = "InvalidSpec") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.reason = reason


class ArtifactInvalid(InvalidInput):
    """An adapter's files do not match their manifest, or are of a sort that is refused."""

    def __init__(self, message: str, *, field: str = "", reason: str = "ArtifactInvalid") -> None:
        super().__init__(message, field=field, reason=reason)


class NotFound(LoraLandError):
    """What was named does not exist."""


class Unavailable(LoraLandError):
    """An outside system does not answer or refuses for now."""

    def __init__(self, message: str, *, retry_after_s: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
