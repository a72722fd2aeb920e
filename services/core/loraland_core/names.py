"""Names of the Kubernetes contract: group, labels, finalizer, condition types and reasons.

Nothing is computed here; every string that two parts must agree on has one home.
"""

from enum import StrEnum

GROUP = "loraland.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FINE_TUNE_JOB = "FineTuneJob"
FINE_TUNE_JOBS = "finetunejobs"
ADAPTER = "Adapter"
ADAPTERS = "adapters"

FINALIZER = f"{GROUP}/unpublish"
MAX_NAME_LENGTH = 50

# Labels on the objects that the operator makes.
LABEL_JOB = f"{GROUP}/fine-tune-job"
LABEL_JOB_UID = f"{GROUP}/fine-tune-job-uid"
# On what an Adapter's import is made of, beside LABEL_JOB_UID, which then holds the Adapter's uid.
LABEL_IMPORT = f"{GROUP}/import-of"
LABEL_ADAPTER = f"{GROUP}/adapter"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
LABEL_PART_OF = "app.kubernetes.io/part-of"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_COMPONENT = "app.kubernetes.io/component"
# When the job that published an Adapter was created; a newer job wins over an older one.
ANNOTATION_JOB_CREATED = f"{GROUP}/fine-tune-job-created"
# The digest that this job published; somebody who set another one since went back by hand.
ANNOTATION_DIGEST = f"{GROUP}/published-digest"

# Field managers of server-side apply.
MANAGER_OPERATOR = "loraland-operator"
MANAGER_PUBLISHER = "loraland-publisher"


class JobCondition(StrEnum):
    """Condition types of a FineTuneJob."""

    ACCEPTED = "Accepted"
    SUSPENDED = "Suspended"
    RUNNING = "Running"
    UPLOADED = "Uploaded"
    ADAPTER_PUBLISHED = "AdapterPublished"
    SUCCEEDED = "Succeeded"


class AdapterCondition(StrEnum):
    """Condition types of an Adapter."""

    ACCEPTED = "Accepted"
    ARTIFACT_VERIFIED = "ArtifactVerified"
    COMPATIBLE = "Compatible"
    REGISTERED = "Registered"
    READY = "Ready"


class Phase(StrEnum):
    """One word for the printer; conditions are what programs read."""

    PENDING = "Pending"
    SUSPENDED = "Suspended"
    RUNNING = "Running"
    PUBLISHING = "Publishing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    READY = "Ready"
    REJECTED = "Rejected"
    DISABLED = "Disabled"
    TERMINATING = "Terminating"


# Which of them an object of a kind can be in.
PHASES = {
    FINE_TUNE_JOB: (
        Phase.PENDING,
        Phase.SUSPENDED,
        Phase.RUNNING,
        Phase.PUBLISHING,
        Phase.SUCCEEDED,
        Phase.FAILED,
        Phase.REJECTED,
    ),
    ADAPTER: (
        Phase.PENDING,
        Phase.READY,
        Phase.REJECTED,
        Phase.DISABLED,
        Phase.TERMINATING,
    ),
}


class Reason(StrEnum):
    """Every reason that a condition or an event of ours can carry."""

    # Not decided yet.
    PENDING = "Pending"
    # Accepted
    SPEC_ACCEPTED = "SpecAccepted"
    INVALID_SPEC = "InvalidSpec"
    UNKNOWN_BASE_MODEL = "UnknownBaseModel"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 (a reason, not a secret)
    RANK_OVER_LIMIT = "RankOverLimit"
    FORBIDDEN = "Forbidden"
    # Suspended
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    NOT_SUSPENDED = "NotSuspended"
    # Running
    WAITING_FOR_POD = "WaitingForPod"
    UNSCHEDULABLE = "Unschedulable"
    QUEUED = "Queued"
    TRAINING = "Training"
    RETRYING = "Retrying"
    DISRUPTED = "Disrupted"
    FINISHED = "Finished"
    # Uploaded
    ARTIFACT_UPLOADED = "ArtifactUploaded"
    RESULT_MISSING = "ResultMissing"
    # AdapterPublished
    PUBLISHED = "Published"
    GATE_FAILED = "GateFailed"
    NAME_TAKEN = "NameTaken"
    PUBLISH_REJECTED = "PublishRejected"
    NO_ARTIFACT = "NoArtifact"
    # Succeeded
    COMPLETED = "Completed"
    IN_PROGRESS = "InProgress"
    INVALID_JOB = "InvalidJob"
    OUT_OF_MEMORY = "OutOfMemory"
    ARTIFACT_STORE_UNREACHABLE = "ArtifactStoreUnreachable"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    JOB_LOST = "JobLost"
    # Succeeded, as the training pod names what is wrong with its input
    SOURCE_NOT_FOUND = "SourceNotFound"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_GATED = "DatasetGated"
    EMPTY_DATASET = "EmptyDataset"
    COLUMN_MISSING = "ColumnMissing"
    INVALID_ROW = "InvalidRow"
    ROW_TOO_LONG = "RowTooLong"
    INVALID_TEMPLATE = "InvalidTemplate"
    INVALID_MESSAGES = "InvalidMessages"
    CHAT_TEMPLATE_MISSING = "ChatTemplateMissing"
    LOSS_NOT_FINITE = "LossNotFinite"
    PROGRAM_FAILS = "ProgramFails"
    SANDBOX_UNAVAILABLE = "SandboxUnavailable"
    TRACKER_MISSING = "TrackerMissing"
    BASE_MODEL_UNAVAILABLE = "BaseModelUnavailable"
    BUCKET_NOT_FOUND = "BucketNotFound"
    STORE_ACCESS_DENIED = "StoreAccessDenied"
    STORE_CREDENTIALS_MISSING = "StoreCredentialsMissing"
    # ArtifactVerified
    ARTIFACT_VALID = "ArtifactValid"
    MANIFEST_MISSING = "ManifestMissing"
    RECORD_UNREADABLE = "RecordUnreadable"
    DIGEST_MISMATCH = "DigestMismatch"
    ARTIFACT_INVALID = "ArtifactInvalid"
    ARTIFACT_TOO_LARGE = "ArtifactTooLarge"
    IMPORTING = "Importing"
    IMPORT_FAILED = "ImportFailed"
    # Compatible
    BASE_MODEL_MATCHES = "BaseModelMatches"
    BASE_MODEL_MISMATCH = "BaseModelMismatch"
    # Registered
    RECORD_WRITTEN = "RecordWritten"
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    DISABLED = "Disabled"
    ROLLED_OUT = "RolledOut"
    ROLLED_BACK = "RolledBack"
    # Ready
    SERVING = "Serving"
    NO_LIVE_REPLICA = "NoLiveReplica"
    WAITING_FOR_REPLICAS = "WaitingForReplicas"
    REJECTED_BY_REPLICA = "RejectedByReplica"
