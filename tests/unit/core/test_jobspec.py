"""The contract between operator and training pod."""

import json

import pytest
from loraland_core import catalogue, jobspec
from loraland_core.errors import InvalidInput
from loraland_core.resources import FineTuneJobSpec
from loraland_core.store import StoreConfig


def _job() -> jobspec.JobSpec:
    return jobspec.JobSpec(
        name="desk",
        namespace="shop",
        uid="u-1",
        adapter_name="desk",
        base_model=catalogue.BaseModelEntry.model_validate({"source": {"embedded": "tiny"}}),
        store=StoreConfig(bucket="b"),
        spec=FineTuneJobSpec.model_validate(
            {
                "baseModel": "tiny",
                "dataset": {"inline": {"rows": "{}"}, "prompt": "{q}", "completion": "{a}"},
            }
        ),
    )


def test_job_survives_a_round_trip() -> None:
    """What the operator mounts is what the pod reads."""
    assert _job() == jobspec.parse_job(_job().to_json())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        pytest.param({"schemaVersion": 2}, "older than the operator", id="newer"),
        pytest.param({"spec": {}}, "spec.baseModel: Field required", id="no-base-model"),
    ],
)
def test_bad_job_file_names_the_field(change: dict[str, object], part: str) -> None:
    """A pod that cannot read its job says which field is wrong."""
    document = json.loads(_job().to_json()) | change

    with pytest.raises(InvalidInput) as caught:
        jobspec.parse_job(json.dumps(document))

    assert part in str(caught.value)


@pytest.mark.parametrize(
    "document",
    ['{"loss": NaN}', '{"etaSeconds": Infinity}', '{"phase": "%s"}' % ("x" * 65), "[", "[]"],
    ids=["nan", "infinity", "long-phase", "cut", "a-list"],
)
def test_progress_that_no_status_can_hold_is_refused(document: str) -> None:
    """Whatever runs in the pod, the operator goes on."""
    with pytest.raises(InvalidInput):
        jobspec.parse_progress(document)


@pytest.mark.parametrize("letter", ["x", "é", '"', "日"])
def test_termination_message_fits_into_4_kib(letter: str) -> None:
    """Kubernetes cuts at 4 KiB, which would leave broken JSON."""
    text = jobspec.TerminationMessage(reason="InvalidRow", message=letter * 9000).to_json()

    message = jobspec.parse_termination_message(text)

    assert len(text.encode()) <= 4096
    assert message is not None
    assert message.message.endswith("…")
    assert len(text.encode()) > 3000


def test_short_termination_message_is_kept_whole() -> None:
    """A message that fits is not touched."""
    text = jobspec.TerminationMessage(reason="A", message="b").to_json()

    assert jobspec.parse_termination_message(text) == jobspec.TerminationMessage(
        reason="A", message="b"
    )


def test_termination_message_of_a_crashed_pod_is_none() -> None:
    """A pod that died before it could speak left no document."""
    assert jobspec.parse_termination_message("Killed\n") is None
