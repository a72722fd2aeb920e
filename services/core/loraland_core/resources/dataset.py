"""The data of a FineTuneJob: where rows come from, which are used, what a row becomes. Pure data."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from loraland_core.resources.common import Decimal, DnsName, Model, S3Uri, SecretRef, rules

Template = Annotated[str, Field(min_length=1, max_length=16384)]
Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Contains", "Gt", "Lt"]


def _config(*pairs: tuple[str, str]) -> ConfigDict:
    return ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        json_schema_extra=rules(*pairs),
    )


class S3Dataset(Model):
    uri: S3Uri = Field(
        description="Training rows: an object, or several by *, ? and [..] within a folder and **"
        " across folders; those that end in .gz are unpacked."
    )
    evaluation_uri: S3Uri | None = Field(default=None, description="Held-out rows, as uri.")


class HuggingFaceDataset(Model):
    repo: Annotated[str, Field(min_length=1, max_length=256)] = Field(description="Data set id.")
    config: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Configuration of the data set."
    )
    revision: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Commit, tag or branch; pin a commit to be reproducible."
    )


class PvcDataset(Model):
    claim: DnsName = Field(description="PersistentVolumeClaim in the job's namespace.")
    path: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="Training rows: a file within the volume, or several as in s3.uri."
    )
    evaluation_path: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="Held-out rows, as path."
    )


class InlineDataset(Model):
    rows: Annotated[str, Field(min_length=1, max_length=1_000_000)] = Field(
        description="Training rows, one JSON object a line."
    )
    evaluation_rows: Annotated[str, Field(max_length=400_000)] | None = Field(
        default=None, description="Held-out rows, one JSON object a line."
    )


class SplitSpec(Model):
    train: Annotated[str, Field(max_length=128)] = Field(
        default="train", description="Split of a Hugging Face data set to train on."
    )
    evaluation: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Split of a Hugging Face data set to evaluate on."
    )
    evaluation_fraction: Decimal = Field(
        default="0.1",
        description="Share of the training rows held out where no evaluation rows are named.",
    )


class FilterSpec(Model):
    """A condition on one column; rows that fail any are left out."""

    model_config = _config(
        (
            "self.operator in ['Exists', 'DoesNotExist'] ? self.values.size() == 0"
            " : self.values.size() > 0",
            "Exists and DoesNotExist take no values, every other operator takes some",
        ),
        (
            "!(self.operator in ['Gt', 'Lt']) || (self.values.size() == 1"
            " && self.values.all(v, v.matches('^-?[0-9]+([.][0-9]+)?$')))",
            "Gt and Lt take one number",
        ),
    )

    column: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="Column; a.b is the field b of the object in column a."
    )
    operator: Operator = Field(
        description="In and NotIn compare the whole value as text, Contains looks for a part of it,"
        " Gt and Lt compare numbers; Exists means there and not null."
    )
    values: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=64)] = Field(
        default=[], description="What to compare with; for Contains any of them suffices."
    )


class DatasetSpec(Model):
    """Where the rows come from and how a row becomes a prompt and its completion."""

    model_config = _config(
        (
            "[has(self.s3), has(self.huggingFace), has(self.pvc), has(self.inline)]"
            ".filter(x, x).size() == 1",
            "exactly one of s3, huggingFace, pvc and inline must be given",
        ),
        (
            "has(self.messages) ? (!has(self.prompt) && !has(self.completion))"
            " : (has(self.prompt) && has(self.completion))",
            "give prompt and completion, or messages alone",
        ),
    )

    s3: S3Dataset | None = Field(default=None, description="Rows in S3 objects.")
    hugging_face: HuggingFaceDataset | None = Field(default=None, description="Rows on the Hub.")
    pvc: PvcDataset | None = Field(default=None, description="Rows in a mounted volume.")
    inline: InlineDataset | None = Field(default=None, description="Rows in this very object.")
    format: Literal["JSONL", "CSV", "Parquet"] = Field(
        default="JSONL", description="Format of the files of s3 and pvc."
    )
    prompt: Template | None = Field(
        default=None, description="Template of the prompt, with {column} placeholders."
    )
    completion: Template | None = Field(
        default=None, description="Template of what the model shall answer."
    )
    messages: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Column that holds a list of chat messages, instead."
    )
    filter: Annotated[list[FilterSpec], Field(max_length=16)] = Field(
        default=[], description="Conditions on columns; only rows that meet all of them are used."
    )
    long_rows: Literal["Cut", "Drop", "Fail"] = Field(
        default="Cut",
        description="A training row over training.maxSequenceLength loses the beginning of its"
        " prompt, is left out, or ends the job. Held-out rows are always cut.",
    )
    split: SplitSpec = Field(default=SplitSpec(), description="Which rows are held out.")
    credentials_secret_ref: SecretRef | None = Field(
        default=None,
        description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or HF_TOKEN.",
    )
