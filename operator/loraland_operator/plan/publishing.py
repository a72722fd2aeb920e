"""Whether a finished job may publish its Adapter under the name it wants. Pure.

A job may create an Adapter, or update one that an earlier job published. An Adapter made by hand or
by a newer job is left alone.
"""

from dataclasses import dataclass
from typing import Any

from loraland_core import conditions, names
from loraland_core.resources import Adapter, FineTuneJob
from loraland_core.resources.common import Metadata

from loraland_operator import manifests


@dataclass(frozen=True)
class Published:
    """The Adapter is this job's already."""

    adapter: Adapter


@dataclass(frozen=True)
class Taken:
    """The name is somebody else's."""

    message: str


@dataclass(frozen=True)
class Publish:
    """The Adapter is to be written like this."""

    manifest: dict[str, Any]
    # An earlier job's is ours to update, and a digest that somebody went back to by hand since then;
    # of one that nobody sees yet, nothing is.
    force: bool


def decide(job: FineTuneJob, digest: str, adapter: Adapter | None) -> Published | Taken | Publish:
    if adapter is not None:
        if adapter.metadata.labels.get(names.LABEL_JOB_UID) == job.metadata.uid:
            return Published(adapter)
        objection = _find_objection(job, digest, adapter)
        if objection:
            return Taken(objection)
    return Publish(
        manifests.build_adapter(job, digest, replaces=adapter), force=adapter is not None
    )


def _find_objection(job: FineTuneJob, digest: str, adapter: Adapter) -> str:
    name = adapter.metadata.name
    publisher = adapter.metadata.labels.get(names.LABEL_JOB)
    if adapter.metadata.deletion_timestamp:
        return f"Adapter {name} is being deleted; wait, then start a new job"
    if publisher is None:
        return (
            f"Adapter {name} was not published by a job; delete it, or choose another"
            " spec.output.adapter.name"
        )
    if adapter.spec.base_model != job.spec.base_model:
        return (
            f"Adapter {name} belongs to base model {adapter.spec.base_model}, this job trained on"
            f" {job.spec.base_model}; choose another spec.output.adapter.name"
        )
    if _order(adapter.metadata) > (_created(job), job.metadata.uid):
        return (
            f"Adapter {name} was published by the newer job {publisher};"
            f" to serve this artifact set spec.source.artifact.digest to {digest}"
        )
    return ""


def _created(job: FineTuneJob) -> float:
    return conditions.parse_timestamp(job.metadata.creation_timestamp).timestamp()


def _order(metadata: Metadata) -> tuple[float, str]:
    """Return when the publishing job was created, with its uid for two of one second."""
    created = metadata.annotations.get(names.ANNOTATION_JOB_CREATED, "")
    try:
        seconds = conditions.parse_timestamp(created).timestamp()
    except ValueError:
        # Somebody removed our annotation: nothing shows that the Adapter is older.
        seconds = float("inf")
    return seconds, metadata.labels.get(names.LABEL_JOB_UID, "")
