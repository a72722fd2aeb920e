"""Adapter: a named, versioned LoRA artifact that replicas serve."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from loraland_core.resources.common import (
    Conditions,
    Digest,
    DnsName,
    Label,
    Metadata,
    Model,
    S3Uri,
    SecretRef,
    ShortText,
    rules,
)


class ArtifactSource(Model):
    digest: Digest = Field(
        description="Digest of an artifact under this namespace's prefix of the platform's bucket."
    )
    name: Label | None = Field(
        default=None,
        description="Name under which the artifact was uploaded; the Adapter's own if empty.",
    )


class S3Source(Model):
    uri: S3Uri = Field(description="Folder with the adapter's PEFT files.")
    credentials_secret_ref: SecretRef | None = Field(
        default=None, description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    )


class HuggingFaceSource(Model):
    repo: Annotated[str, Field(min_length=1, max_length=256)] = Field(description="Repository id.")
    revision: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Commit, tag or branch."
    )
    credentials_secret_ref: SecretRef | None = Field(
        default=None, description="Secret with HF_TOKEN."
    )


class PvcSource(Model):
    claim: DnsName = Field(description="PersistentVolumeClaim in the Adapter's namespace.")
    path: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="Folder with the adapter's PEFT files, within the volume."
    )


class SourceSpec(Model):
    """Where the adapter's files come from."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        json_schema_extra=rules(
            (
                "[has(self.artifact), has(self.s3), has(self.huggingFace), has(self.pvc)]"
                ".filter(x, x).size() == 1",
                "exactly one of artifact, s3, huggingFace and pvc must be given",
            )
        ),
    )

    artifact: ArtifactSource | None = Field(default=None, description="An uploaded artifact.")
    s3: S3Source | None = Field(default=None, description="Imported from S3.")
    hugging_face: HuggingFaceSource | None = Field(default=None, description="Imported from a Hub.")
    pvc: PvcSource | None = Field(default=None, description="Imported from a volume.")


class ImporterSpec(Model):
    """How the pod runs that imports from s3, huggingFace or pvc."""

    credentials_secret_ref: SecretRef | None = Field(
        default=None,
        description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for writing below this"
        " namespace's prefix of the platform's bucket.",
    )
    service_account_name: DnsName | None = Field(
        default=None, description="ServiceAccount of the pod, for IRSA or workload identity."
    )


class AdapterSpec(Model):
    """An adapter that replicas of its base model serve."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        json_schema_extra=rules(
            ("self.baseModel == oldSelf.baseModel", "baseModel is immutable: create a new Adapter")
        ),
    )

    source: SourceSpec = Field(description="Where the files come from.")
    importer: ImporterSpec = Field(
        default=ImporterSpec(), description="How files from elsewhere are imported."
    )
    base_model: Label = Field(description="A base model of the catalogue, by name.")
    pinned: bool = Field(default=False, description="Keep it in a slot of every replica.")
    priority: int = Field(
        default=0,
        ge=-1000,
        le=1000,
        description="Higher goes first: into slots, and when many wait.",
    )
    prefetch: bool = Field(default=False, description="Bring it to every replica beforehand.")
    enabled: bool = Field(default=True, description="False stops serving and keeps the files.")
    allowed_tenants: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=63)]], Field(max_length=256)
    ] = Field(
        default=[],
        description="Tenants that may use it; empty for this namespace alone, * for everyone.",
    )
    deletion_policy: Literal["Retain", "Delete"] = Field(
        default="Retain", description="What happens to the files when the Adapter is deleted."
    )
    revision_history_limit: int = Field(
        default=10, ge=0, le=100, description="Earlier digests whose files are kept."
    )


class ReplicaCount(Model):
    """How many replicas of the base model serve this very record."""

    ready: int = Field(default=0, description="Replicas that have read it and do not refuse it.")
    total: int = Field(default=0, description="Replicas that are alive.")


class Instance(Model):
    """What one replica does with the adapter."""

    replica: ShortText = Field(description="Name of the replica: mostly that of its pod.")
    tier: ShortText | None = Field(
        default=None, description="How near the files are: slot, host or disk."
    )
    digest: ShortText | None = Field(default=None, description="Which version it has.")
    error: ShortText | None = Field(default=None, description="Why it cannot serve the adapter.")


class Imported(Model):
    """What the last import from this source brought."""

    source_hash: ShortText = Field(description="Tells this source from another one.")
    digest: Digest = Field(description="The artifact that was made of it.")


class Revision(Model):
    """A version that was rolled out. To go back to it, name it in spec.source.artifact."""

    digest: Digest = Field(description="The artifact, for spec.source.artifact.digest.")
    name: Label | None = Field(
        default=None,
        description="For spec.source.artifact.name, if it is not the Adapter's own name.",
    )
    cause: ShortText = Field(
        description="Where it came from: FineTuneJob/NAME, Import, or Spec for a digest set by hand."
    )
    registered_at: ShortText = Field(
        description="When replicas could read of it for the last time."
    )
    ready_at: ShortText | None = Field(
        default=None, description="When a replica first served it after that."
    )


class AdapterStatus(Model):
    """What the operator found; it is derived from the world and can be lost."""

    observed_generation: int | None = Field(
        default=None, description="Generation of the spec that the status tells of."
    )
    phase: ShortText | None = Field(default=None, description="One word for the printer.")
    conditions: Conditions = Field(default=[], description="What is the case, and why.")
    imported: Imported | None = Field(
        default=None, description="What was imported from s3, huggingFace or pvc."
    )
    digest: ShortText | None = Field(default=None, description="The version that is served.")
    uri: ShortText | None = Field(default=None, description="Where its files lie.")
    rank: int | None = Field(default=None, description="Rank of the low-rank update.")
    target_modules: Annotated[list[ShortText], Field(max_length=64)] | None = Field(
        default=None, description="Linear modules that get an update."
    )
    size_bytes: int | None = Field(default=None, description="Size of the served files.")
    replicas: ReplicaCount | None = Field(default=None, description="How many replicas serve it.")
    instances: Annotated[list[Instance], Field(max_length=64)] | None = Field(
        default=None,
        description="Where it is resident or refused; written at most every 30 seconds.",
    )
    registered_revision: ShortText | None = Field(
        default=None, description="Revision of the registry record that serves this spec."
    )
    history: Annotated[list[Revision], Field(max_length=101)] | None = Field(
        default=None,
        description="Versions that were rolled out, the current one first;"
        " as many earlier ones as spec.revisionHistoryLimit says.",
    )


class Adapter(Model):
    api_version: str = "loraland.dev/v1alpha1"
    kind: str = "Adapter"
    metadata: Metadata
    spec: AdapterSpec
    status: AdapterStatus = AdapterStatus()
