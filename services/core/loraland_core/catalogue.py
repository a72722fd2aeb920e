"""The catalogue: the base models of an installation, by name. Parsing only; no weights.

It is a YAML file (a ConfigMap of the chart, mounted)::

    schemaVersion: 1
    baseModels:
      smollm2-135m-instruct:
        source: {embedded: smollm2-135m-instruct}
        training: {qloraQuantization: nf4, dtype: float32}
        serving: {quantization: nf4, dtype: float32}
        limits: {contextTokens: 2048, maxRank: 64}
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from loraland_core.errors import InvalidInput
from loraland_core.resources.common import Label, Model

SCHEMA_VERSION = 1

Dtype = Literal["float32", "bf16", "fp16"]
Quantization = Literal["none", "nf4", "int8"]


class _Strict(Model):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class HubSource(_Strict):
    repo: str
    revision: str = "main"


class Source(_Strict):
    """Where the weights come from; exactly one."""

    hub: HubSource | None = None
    directory: str | None = None
    s3: str | None = None
    embedded: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Source":
        given = [n for n in type(self).model_fields if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of hub, directory, s3, embedded; found {given}")
        return self


class TrainingPrecision(_Strict):
    dtype: Dtype = "bf16"
    # What QLoRA trains over; LoRA trains over unquantized weights.
    qlora_quantization: Literal["nf4"] = "nf4"


class ServingPrecision(_Strict):
    dtype: Dtype = "bf16"
    quantization: Quantization = "nf4"

    @property
    def label(self) -> str:
        """The precision in one word, as reports print it."""
        return self.dtype if self.quantization == "none" else self.quantization


class Limits(_Strict):
    context_tokens: int = Field(default=4096, ge=64)
    max_rank: int = Field(default=64, ge=1, le=256)


class BaseModelEntry(_Strict):
    """One base model."""

    source: Source
    training: TrainingPrecision = TrainingPrecision()
    serving: ServingPrecision = ServingPrecision()
    limits: Limits = Limits()
    # Requests and limits of a training pod that names none.
    default_resources: dict[str, Any] = {}


class Catalogue(_Strict):
    schema_version: int = SCHEMA_VERSION
    base_models: Annotated[dict[Label, BaseModelEntry], Field(min_length=1)]

    def find(self, name: str) -> BaseModelEntry:
        """Return the entry; an unknown name is answered with the known ones."""
        entry = self.base_models.get(name)
        if entry is None:
            known = ", ".join(sorted(self.base_models))
            raise InvalidInput(
                f"no base model {name!r} in the catalogue; it knows: {known}",
                field="spec.baseModel",
                reason="UnknownBaseModel",
            )
        return entry


def parse(text: str, *, origin: str = "catalogue") -> Catalogue:
    """Read a catalogue; an error names the file and the field."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInput(f"not YAML: {error}", field=origin) from error
    if not isinstance(document, dict):
        raise InvalidInput("expected a mapping with baseModels", field=origin)
    version = document.get("schemaVersion", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise InvalidInput(
            f"schemaVersion {version} is not known here, only {SCHEMA_VERSION}; upgrade this part",
            field=origin,
        )
    try:
        return Catalogue.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{path}: {first['msg']}", field=origin) from error


def load(path: Path) -> Catalogue:
    try:
        text = path.read_text()
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", field=str(path)) from error
    return parse(text, origin=str(path))
