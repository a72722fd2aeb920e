"""When finished Jobs and old Events may go. Pure, no I/O."""

import datetime as dt

from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object

EVENT_TTL_S = 3600.0


def job_left_s(job: Object, now: dt.datetime) -> float | None:
    """Return the seconds a finished job may still stay; None when it stays for good."""
    ttl_s = job["spec"].get("ttlSecondsAfterFinished")
    if ttl_s is None or objects.is_deleting(job):
        return None
    for kind in ("Complete", "Failed"):
        found = objects.condition(job, kind)
        if found is not None and found["status"] == "True":
            finished = objects.parse_time(found.get("lastTransitionTime")) or now
            return float(ttl_s) - (now - finished).total_seconds()
    return None


def is_event_outdated(event: Object, now: dt.datetime) -> bool:
    """Say whether nothing has happened to the event for its time to live."""
    series = event.get("series") or {}
    moments = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        objects.metadata(event).get("creationTimestamp"),
    )
    known = [moment for text in moments if (moment := objects.parse_time(text)) is not None]
    return bool(known) and (now - max(known)).total_seconds() > EVENT_TTL_S
