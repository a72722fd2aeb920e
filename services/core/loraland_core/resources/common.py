"""What both custom resources are built from."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

# Kubernetes API conventions: no floats in specs, decimal strings instead.
Decimal = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?([eE]-?[0-9]{1,2})?$", max_length=24)]
Label = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=50)]
DnsName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=253)
]
S3Uri = Annotated[
    str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+$", max_length=1024)
]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ShortText = Annotated[str, Field(max_length=1024)]
# A part of the Kubernetes API that is passed on as it is.
Passthrough = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
]


class Model(BaseModel):
    """Fields are snake_case here and camelCase in YAML; unknown ones are tolerated.

    (The API server rejects unknown fields; a reader of an older release must live with them.)
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Return CEL validations for a schema, from (rule, message) pairs."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": text} for rule, text in pairs]}


class SecretRef(Model):
    """A Secret in the resource's own namespace."""

    name: DnsName = Field(description="Name of the Secret.")


class Metadata(Model):
    """The part of ``metadata`` that our code reads."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []


class Condition(Model):
    """As ``metav1.Condition``."""

    type: Annotated[str, Field(max_length=64)] = Field(description="What is told of.")
    status: Annotated[str, Field(json_schema_extra={"enum": ["True", "False", "Unknown"]})] = Field(
        description="Whether it is so."
    )
    observed_generation: int | None = Field(
        default=None, description="Generation of the spec that this was said of."
    )
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] = Field(
        description="When the status last became another one."
    )
    reason: Annotated[
        str, Field(max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$")
    ] = Field(description="Why, in a word for programs; docs/operations.md explains each.")
    message: Annotated[str, Field(max_length=32768)] = Field(
        default="", description="Why, in a sentence for people."
    )


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
