"""The contract between operator and training pod: job file, progress, exit codes. No I/O.

The operator mounts ``JOB_FILE``; the pod answers ``GET /progress`` on ``PROGRESS_PORT``, ends with
one of the exit codes and leaves its result in the artifact store.
"""

import json
from enum import IntEnum
from typing import Annotated

from pydantic import Field, ValidationError

from loraland_core.catalogue import BaseModelEntry
from loraland_core.errors import InvalidInput
from loraland_core.resources import FineTuneJobSpec
from loraland_core.resources.common import Model
from loraland_core.store import StoreConfig

SCHEMA_VERSION = 1
JOB_FILE = "/etc/loraland/job.json"
DATASET_MOUNT = "/mnt/dataset"
PROGRESS_PORT = 9400
MAX_TERMINATION_MESSAGE_BYTES = 4096
# Where a training pod finds the credentials of its data set: the same names as for the artifact
# store, behind this prefix, because the two may belong to different accounts.
DATASET_ENV_PREFIX = "DATASET_"


class ExitCode(IntEnum):
    """How a training pod ends; anything else is retried."""

    DONE = 0
    INVALID_JOB = 42
    OUT_OF_MEMORY = 43
    STORE_UNREACHABLE = 44
    TERMINATED = 143


# A pod that ended so would end so again.
NOT_RETRIED = (ExitCode.INVALID_JOB, ExitCode.OUT_OF_MEMORY)


class JobSpec(Model):
    """Everything that a training pod needs to know; holds no secret."""

    schema_version: int = SCHEMA_VERSION
    name: str
    namespace: str
    uid: str
    adapter_name: str
    base_model: BaseModelEntry
    store: StoreConfig
    spec: FineTuneJobSpec

    def to_json(self) -> str:
        document = self.model_dump(by_alias=True, exclude_none=True)
        return json.dumps(document, sort_keys=True, ensure_ascii=False)


# A status cannot say NaN or infinity.
Number = Annotated[float, Field(allow_inf_nan=False)]


class Progress(Model):
    """The reply of ``GET /progress``."""

    step: int = 0
    total_steps: int = 0
    loss: Number | None = None
    tokens_per_second: Number | None = None
    eta_seconds: Number | None = None
    # starting, loading-model, loading-data, scoring-base, training, scoring-tuned, uploading, done
    phase: str = Field(default="starting", max_length=64)

    def to_json(self) -> str:
        return json.dumps(self.model_dump(by_alias=True))


class TerminationMessage(Model):
    reason: str
    message: str

    def to_json(self) -> str:
        """Return the document, its message cut so that the whole stays within 4 KiB."""
        kept = len(self.message)
        while True:
            message = self.message if kept == len(self.message) else self.message[:kept] + "…"
            text = json.dumps({"reason": self.reason, "message": message}, ensure_ascii=False)
            excess_bytes = len(text.encode()) - MAX_TERMINATION_MESSAGE_BYTES
            if excess_bytes <= 0 or kept == 0:
                return text
            kept = max(0, kept - max(1, excess_bytes // 4))


def parse_job(data: bytes | str) -> JobSpec:
    """Read the job file; raise ``InvalidInput`` naming the field."""
    try:
        job = JobSpec.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(first["msg"], field=path, reason="InvalidJob") from error
    if job.schema_version > SCHEMA_VERSION:
        raise InvalidInput(
            f"schemaVersion {job.schema_version} is newer than {SCHEMA_VERSION};"
            " the trainer image is older than the operator",
            field=JOB_FILE,
            reason="InvalidJob",
        )
    return job


def parse_progress(data: bytes | str) -> Progress:
    try:
        return Progress.model_validate_json(data)
    except ValidationError as error:
        raise InvalidInput(error.errors()[0]["msg"], field="progress") from error


def parse_termination_message(text: str) -> TerminationMessage | None:
    """Return the message, or None for a pod that died before it could write one."""
    try:
        return TerminationMessage.model_validate_json(text)
    except ValidationError:
        return None
