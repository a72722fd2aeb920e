"""FineTuneJob: one training run that ends in an adapter."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from loraland_core.resources.common import (
    Conditions,
    Decimal,
    Digest,
    DnsName,
    Label,
    Metadata,
    Model,
    Passthrough,
    SecretRef,
    ShortText,
    rules,
)
from loraland_core.resources.dataset import DatasetSpec, Template

Metric = Literal[
    "ExactMatch", "JsonFieldMatch", "Accuracy", "F1", "RougeL", "MAE", "Perplexity", "PassAt1"
]
# The one metric that is better when it is lower.
PERPLEXITY = "Perplexity"
EXECUTION = "PassAt1"
# What may change on a live job; everything else is fixed at creation.
MUTABLE_FIELDS = ("suspend", "ttlSecondsAfterFinished", "activeDeadlineSeconds")


def _config(*pairs: tuple[str, str]) -> ConfigDict:
    return ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        json_schema_extra=rules(*pairs),
    )


class LoraSpec(Model):
    """The adapter's shape. Source of the defaults: LoRA Land, arXiv 2405.00732."""

    model_config = _config(
        (
            "!has(self.learningRateRatio) || double(self.learningRateRatio) >= 1.0",
            "learningRateRatio must be at least 1: it says how much faster B learns than A",
        )
    )

    rank: int = Field(default=8, ge=1, le=256, description="Rank of the low-rank update.")
    alpha: int = Field(default=16, ge=1, le=1024, description="The update is scaled by alpha/rank.")
    dropout: Decimal = Field(default="0", description="Dropout before A, a decimal string.")
    target_modules: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=32)] = (
        Field(
            default=["q_proj", "v_proj"],
            description="Linear modules that get an update, by name; all-linear for every one.",
        )
    )
    rs_lora: bool = Field(
        default=False, description="Scale by alpha / sqrt(rank) instead: rank-stabilized LoRA."
    )
    learning_rate_ratio: Decimal = Field(
        default="1",
        description="LoRA+: B learns this many times faster than A, a decimal string.",
    )


class EarlyStoppingSpec(Model):
    """Ends a training that no longer learns; what is kept is the best adapter seen."""

    every_steps: int = Field(
        default=50, ge=1, le=1_000_000, description="Steps between two looks at the held-out loss."
    )
    patience: int = Field(
        default=3, ge=1, le=1000, description="Looks without an improvement before the end."
    )
    min_improvement: Decimal = Field(
        default="0", description="By how much the loss must fall to count, a decimal string."
    )


class TrainingSpec(Model):
    """How long and how fast to learn."""

    model_config = _config(
        (
            "!(has(self.epochs) && has(self.maxSteps))",
            "epochs and maxSteps exclude each other: remove one of them",
        )
    )

    epochs: int | None = Field(
        default=None, ge=1, le=1000, description="Passes over the rows; 3 if nothing is said."
    )
    max_steps: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Optimizer steps, instead of epochs."
    )
    batch_size: int = Field(default=1, ge=1, le=4096, description="Rows a device and micro-step.")
    gradient_accumulation: int = Field(
        default=16, ge=1, le=4096, description="Micro-steps that make an optimizer step."
    )
    learning_rate: Decimal = Field(default="0.0002", description="Peak rate, a decimal string.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="How the rate falls after warm-up."
    )
    warmup_ratio: Decimal = Field(
        default="0.03", description="Share of the steps spent warming up, a decimal string."
    )
    max_sequence_length: int = Field(
        default=1024, ge=8, le=131_072, description="Longer rows are cut, in tokens."
    )
    seed: int = Field(default=0, ge=0, le=2_147_483_647, description="Same seed, same adapter.")
    batching: Literal["Packed", "LengthGrouped"] = Field(
        default="Packed",
        description="Rows of a micro-step end to end without padding, or padded to the longest.",
    )
    auto_batch_size: bool = Field(
        default=True,
        description="Fit the rows of a micro-step to the memory; batchSize x gradientAccumulation"
        " rows make a step either way.",
    )
    gradient_checkpointing: Literal["Auto", "Always", "Never"] = Field(
        default="Auto",
        description="Compute activations twice instead of keeping them; Auto: where memory is short.",
    )
    optimizer: Literal["Auto", "AdamW", "PagedAdamW8bit"] = Field(
        default="Auto", description="Auto: paged 8-bit AdamW for QLoRA on a GPU, else AdamW."
    )
    early_stopping: EarlyStoppingSpec | None = Field(
        default=None, description="End when the held-out loss falls no more; never if not given."
    )
    report_to: Annotated[list[Literal["MLflow", "WandB"]], Field(max_length=2)] = Field(
        default=[],
        description="Trackers that are told every step; set up by their variables in pod.env.",
    )


class GateSpec(Model):
    """What the tuned model must reach before an Adapter is published; on the first metric."""

    minimum: Decimal | None = Field(default=None, description="Least score, a decimal string.")
    maximum: Decimal | None = Field(
        default=None, description="Highest perplexity, a decimal string; for Perplexity alone."
    )
    must_beat_base: bool = Field(default=False, description="Score better than the base model.")


class EvaluationSpec(Model):
    """How well base and tuned model answer the held-out rows."""

    model_config = _config(
        (
            f"('{EXECUTION}' in self.metrics) == has(self.program)",
            "PassAt1 and program need each other: program is what runs an answer and its tests",
        ),
        (
            "!has(self.program) || self.program.contains('{answer}')",
            "program must have the placeholder {answer}, where the model's answer comes in",
        ),
        (
            f"self.metrics[0] == '{PERPLEXITY}' ? !has(self.gate.minimum) : !has(self.gate.maximum)",
            "gate.maximum is for Perplexity, which is better when it is lower, and gate.minimum for"
            " every other first metric",
        ),
    )

    metrics: Annotated[list[Metric], Field(min_length=1, max_length=8)] = Field(
        default=["ExactMatch"], description="Scores to report; the gate looks at the first."
    )
    max_samples: int = Field(default=64, ge=1, le=100_000, description="Held-out rows used.")
    max_new_tokens: int = Field(default=64, ge=1, le=8192, description="Longest answer, in tokens.")
    gate: GateSpec = Field(default=GateSpec(), description="Condition for publishing.")
    program: Template | None = Field(
        default=None,
        description="Template of the Python program that PassAt1 runs, with {column} placeholders"
        " and {answer}; a column that is a list of texts comes in as lines.",
    )


class CheckpointSpec(Model):
    """How often progress is saved to the artifact store."""

    every_steps: int = Field(default=1000, ge=1, le=1_000_000, description="Steps between two.")
    keep_last: int = Field(default=2, ge=1, le=100, description="How many are kept.")


class AdapterTemplate(Model):
    """The Adapter that a successful job publishes."""

    name: Label | None = Field(default=None, description="Name of the Adapter; the job's if empty.")
    labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = (
        Field(default={}, description="Labels of the Adapter.")
    )
    pinned: bool = Field(default=False, description="Keep it in a slot of every replica.")
    deletion_policy: Literal["Retain", "Delete"] = Field(
        default="Retain", description="What happens to the files when the Adapter is deleted."
    )


class OutputSpec(Model):
    """What a successful run leaves."""

    adapter: AdapterTemplate = Field(default=AdapterTemplate(), description="What is published.")
    credentials_secret_ref: SecretRef | None = Field(
        default=None,
        description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the artifact"
        " store; without it the pod's service account must have access.",
    )


class EnvVar(Model):
    """An environment variable, as in a Kubernetes container."""

    name: Annotated[str, Field(min_length=1, max_length=256)] = Field(description="Its name.")
    value: Annotated[str, Field(max_length=32768)] | None = Field(
        default=None, description="Its value."
    )
    value_from: Passthrough | None = Field(
        default=None, description="Where its value comes from, such as a secretKeyRef."
    )


class PodSpec(Model):
    """How the training pod is scheduled and equipped; as in a Kubernetes pod."""

    resources: Passthrough | None = Field(
        default=None,
        description="Requests and limits of the container, GPUs and MIG slices included;"
        " the catalogue's if empty.",
    )
    node_selector: Annotated[dict[str, str], Field(max_length=64)] | None = Field(
        default=None, description="Labels that a node must have."
    )
    tolerations: Annotated[list[Passthrough], Field(max_length=32)] | None = Field(
        default=None, description="Taints of nodes that do not keep it away."
    )
    affinity: Passthrough | None = Field(
        default=None, description="Nodes and pods that it should be near to, or far from."
    )
    topology_spread_constraints: Annotated[list[Passthrough], Field(max_length=16)] | None = Field(
        default=None, description="How the pods of one job spread over nodes or zones."
    )
    priority_class_name: DnsName | None = Field(
        default=None, description="PriorityClass: who gives way to whom."
    )
    runtime_class_name: DnsName | None = Field(
        default=None, description="RuntimeClass, such as nvidia."
    )
    service_account_name: DnsName | None = Field(
        default=None, description="ServiceAccount of the pod, for IRSA or workload identity."
    )
    image_pull_secrets: Annotated[list[SecretRef], Field(max_length=16)] | None = Field(
        default=None, description="Secrets for the registry of the trainer's image."
    )
    env: Annotated[list[EnvVar], Field(max_length=128)] | None = Field(
        default=None, description="More environment variables; they hold over ours."
    )
    labels: Annotated[dict[str, str], Field(max_length=64)] | None = Field(
        default=None, description="More labels of the pod; ours hold over them."
    )
    annotations: Annotated[dict[str, str], Field(max_length=64)] | None = Field(
        default=None, description="Annotations of the pod."
    )
    shared_memory: Annotated[str, Field(pattern=r"^[0-9]+(Ki|Mi|Gi)?$", max_length=16)] | None = (
        Field(default=None, description="Size of /dev/shm, such as 8Gi.")
    )


class FineTuneJobSpec(Model):
    """A training run."""

    base_model: Label = Field(description="A base model of the catalogue, by name.")
    method: Literal["QLoRA", "LoRA"] = Field(
        default="QLoRA", description="QLoRA trains over a 4-bit base, LoRA over a full one."
    )
    lora: LoraSpec = Field(default=LoraSpec(), description="The adapter's shape.")
    training: TrainingSpec = Field(default=TrainingSpec(), description="The recipe.")
    dataset: DatasetSpec = Field(description="The rows.")
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="The scores.")
    checkpoint: CheckpointSpec = Field(default=CheckpointSpec(), description="Saving progress.")
    output: OutputSpec = Field(default=OutputSpec(), description="What comes out.")
    pod: PodSpec = Field(default=PodSpec(), description="Where it runs.")
    num_nodes: int = Field(default=1, ge=1, le=256, description="Pods that train together.")
    num_proc_per_node: int = Field(default=1, ge=1, le=16, description="Processes a pod.")
    suspend: bool | None = Field(default=None, description="Stop the pods until set to false.")
    queue_name: DnsName | None = Field(
        default=None, description="Kueue LocalQueue that decides when the job starts."
    )
    backoff_limit: int = Field(default=3, ge=0, le=100, description="Retries after failures.")
    active_deadline_seconds: int | None = Field(
        default=None, ge=1, description="Time that the job may take, in seconds."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, description="The job is deleted this long after its end."
    )


def _immutable(field: str, required: bool) -> tuple[str, str]:
    message = f"{field} is immutable: create a new job instead"
    if required:
        return f"self.{field} == oldSelf.{field}", message
    return (
        f"has(self.{field}) == has(oldSelf.{field})"
        f" && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        message,
    )


def spec_rules() -> dict[str, Any]:
    """Return the CEL rules of a FineTuneJob's spec: exclusions, then what cannot change."""
    fixed = [
        _immutable(to_camel(name), required=name == "base_model")
        for name in FineTuneJobSpec.model_fields
        if to_camel(name) not in MUTABLE_FIELDS
    ]
    return rules(
        (
            "!(has(self.suspend) && has(self.queueName))",
            "suspend and queueName exclude each other: with queueName, Kueue decides when to run",
        ),
        *fixed,
    )


FineTuneJobSpec.model_config["json_schema_extra"] = spec_rules()


class Progress(Model):
    """How far the run is, as its pod told last."""

    step: int = Field(default=0, description="Optimizer steps done.")
    total_steps: int = Field(default=0, description="Optimizer steps in all.")
    percent: int = Field(default=0, description="Steps done, of a hundred.")
    loss: ShortText | None = Field(default=None, description="Last training loss.")
    tokens_per_second: int | None = Field(default=None, description="Speed of the training.")
    eta_seconds: int | None = Field(default=None, description="Seconds that it will still take.")
    phase: ShortText | None = Field(default=None, description="What the pod is doing.")


class Score(Model):
    """One metric, as decimal strings."""

    name: ShortText = Field(description="Name of the metric.")
    base: ShortText | None = Field(default=None, description="Score of the base model alone.")
    tuned: ShortText | None = Field(default=None, description="Score with the adapter.")


class ArtifactStatus(Model):
    """The adapter's files in the artifact store."""

    uri: ShortText = Field(description="Where they lie.")
    digest: Digest = Field(description="What they are, and the name of their version.")
    size_bytes: int = Field(default=0, description="Size of the served files.")


class ObjectRef(Model):
    """An object of the same namespace."""

    name: ShortText = Field(description="Its name.")
    uid: ShortText | None = Field(default=None, description="Tells it from others of that name.")


class Failure(Model):
    """Why the run failed."""

    reason: ShortText = Field(description="In a word; docs/operations.md says what to do.")
    message: Annotated[str, Field(max_length=8192)] = Field(
        default="", description="In a sentence, or the end of the log."
    )
    exit_code: int | None = Field(
        default=None, description="Of the container that failed last, if one did."
    )


class FineTuneJobStatus(Model):
    """What the operator found; it is derived from the world and can be lost."""

    observed_generation: int | None = Field(
        default=None, description="Generation of the spec that the status tells of."
    )
    phase: ShortText | None = Field(default=None, description="One word for the printer.")
    reason: ShortText | None = Field(
        default=None, description="The reason of that condition which explains the phase."
    )
    conditions: Conditions = Field(default=[], description="What is the case, and why.")
    attempts: int | None = Field(default=None, description="How often pods were started.")
    progress: Progress | None = Field(default=None, description="How far the run is.")
    metrics: (
        Annotated[
            list[Score],
            Field(
                max_length=16,
                json_schema_extra={
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                },
            ),
        ]
        | None
    ) = Field(default=None, description="Scores of base and tuned model on held-out rows.")
    num_evaluated: int | None = Field(default=None, description="Held-out rows scored.")
    artifact: ArtifactStatus | None = Field(default=None, description="What was uploaded.")
    adapter_ref: ObjectRef | None = Field(default=None, description="The Adapter published.")
    job_ref: ObjectRef | None = Field(default=None, description="The batch/v1 Job that runs it.")
    failure: Failure | None = Field(default=None, description="Why it failed, if it did.")
    start_time: ShortText | None = Field(default=None, description="When its Job started.")
    completion_time: ShortText | None = Field(default=None, description="When it ended.")


class FineTuneJob(Model):
    api_version: str = "loraland.dev/v1alpha1"
    kind: str = "FineTuneJob"
    metadata: Metadata
    spec: FineTuneJobSpec
    status: FineTuneJobStatus = FineTuneJobStatus()
