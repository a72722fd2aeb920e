"""Where an artifact is on its way from S3 to a slot, and what may happen to it there. Pure.

ABSENT → FETCHING → DISK → HOST → LOADING → RESIDENT, and FAILED until a time to try again. A state
names the nearest tier that has the artifact; farther ones may have lost it meanwhile.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from loraland_core.errors import ArtifactInvalid, Unavailable

FIRST_RETRY_S = 1.0
MAX_RETRY_S = 30.0


class State(StrEnum):
    ABSENT = "absent"
    FETCHING = "fetching"
    DISK = "disk"
    HOST = "host"
    LOADING = "loading"
    RESIDENT = "slot"
    FAILED = "failed"


class Event(StrEnum):
    FETCH = "fetch"
    FETCHED = "fetched"
    # It was on the disk already, left by the process before or brought by a neighbour.
    FOUND = "found"
    PACKED = "packed"
    LOAD = "load"
    LOADED = "loaded"
    # Out of the slot, or the engine is gone.
    UNLOADED = "unloaded"
    HOST_EVICTED = "host-evicted"
    DISK_EVICTED = "disk-evicted"
    FAIL = "fail"
    RETRY = "retry"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.ABSENT, Event.FETCH): State.FETCHING,
    (State.ABSENT, Event.FOUND): State.DISK,
    (State.FETCHING, Event.FETCHED): State.DISK,
    (State.FETCHING, Event.FAIL): State.FAILED,
    (State.DISK, Event.PACKED): State.HOST,
    (State.DISK, Event.FAIL): State.FAILED,
    (State.DISK, Event.DISK_EVICTED): State.ABSENT,
    (State.HOST, Event.LOAD): State.LOADING,
    (State.HOST, Event.HOST_EVICTED): State.DISK,
    (State.LOADING, Event.LOADED): State.RESIDENT,
    (State.LOADING, Event.UNLOADED): State.HOST,
    (State.LOADING, Event.FAIL): State.FAILED,
    (State.RESIDENT, Event.UNLOADED): State.HOST,
    (State.FAILED, Event.RETRY): State.ABSENT,
    # What is nearer does not need what is farther.
    (State.HOST, Event.DISK_EVICTED): State.HOST,
    (State.LOADING, Event.DISK_EVICTED): State.LOADING,
    (State.RESIDENT, Event.DISK_EVICTED): State.RESIDENT,
    (State.FAILED, Event.DISK_EVICTED): State.FAILED,
    (State.FAILED, Event.HOST_EVICTED): State.FAILED,
}


@dataclass
class _Place:
    state: State = State.ABSENT
    num_failures: int = 0
    retry_at_s: float = 0.0
    error: str = ""


class Places:
    """The state of each artifact by digest. What is absent and has not failed takes no room."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._places: dict[str, _Place] = {}

    def state(self, digest: str) -> State:
        place = self._places.get(digest)
        return place.state if place else State.ABSENT

    def move(self, digest: str, event: Event) -> None:
        """Note what happened; what cannot happen in this state is our own mistake."""
        place = self._places.setdefault(digest, _Place())
        after = TRANSITIONS.get((place.state, event))
        assert after is not None, f"{digest[:12]} is {place.state}: no {event}"
        place.state = after
        if after is State.RESIDENT:
            place.num_failures, place.error = 0, ""
        if after is State.ABSENT and not place.num_failures:
            del self._places[digest]

    def fail(self, digest: str, error: Exception) -> None:
        """Note a failure; each in a row doubles the time until the next attempt."""
        self.move(digest, Event.FAIL)
        place = self._places[digest]
        delay_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2.0**place.num_failures)
        place.num_failures += 1
        # How long a wrong artifact is refused is the registry's to say.
        is_wrong = isinstance(error, ArtifactInvalid)
        wait_s = 0.0 if is_wrong else delay_s * self._jitter(0.5, 1.0)
        place.retry_at_s = self._clock() + wait_s
        place.error = f"{type(error).__name__}: {error}"

    def admit(self, digest: str) -> None:
        """Raise ``Unavailable`` while an artifact that failed is not to be tried again yet."""
        place = self._places.get(digest)
        if place is None or place.state is not State.FAILED:
            return
        remaining_s = place.retry_at_s - self._clock()
        if remaining_s > 0:
            raise Unavailable(
                f"{digest[:12]} could not be fetched, and is tried again in {remaining_s:.1f} s:"
                f" {place.error}",
                retry_after_s=max(0.1, remaining_s),
            )
        self.move(digest, Event.RETRY)

    def retry(self, digest: str) -> None:
        """Let an artifact that failed be tried at once."""
        if self.state(digest) is State.FAILED:
            self.move(digest, Event.RETRY)

    def failures(self) -> dict[str, str]:
        """Return what went wrong with those that are not to be had now, by digest."""
        return {d: p.error for d, p in self._places.items() if p.state is State.FAILED}

    def forget_failures(self, known: set[str]) -> None:
        """Drop what failed once and is no longer asked for by any record."""
        for digest in set(self._places) - known:
            if self.state(digest) in (State.ABSENT, State.FAILED):
                del self._places[digest]
