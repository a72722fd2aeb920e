"""A job's file is held to what an API server would say to it."""

from pathlib import Path

import pytest
from loraland_cli import jobfile
from loraland_core.errors import InvalidInput

JOB = """apiVersion: loraland.dev/v1alpha1
kind: FineTuneJob
metadata: {name: words, labels: {a: b}}
spec:
  baseModel: tiny
  dataset:
    prompt: "{word}:"
    completion: "{upper}"
    inline: {rows: "{}"}
"""


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def test_defaults_are_the_resources_own(job_file: Path) -> None:
    """As after an apply; other documents of the file are left alone."""
    job_file.write_text(f"kind: Namespace\n---\n{JOB}")

    job = jobfile.read(job_file)

    assert (job.metadata.name, job.metadata.namespace) == ("words", "default")
    assert (job.spec.lora.rank, job.spec.dataset.long_rows) == (8, "Cut")


def test_the_uid_is_that_of_the_job(job_file: Path) -> None:
    """The same file goes on where it stopped; a changed one is another job."""
    first = jobfile.job_uid(jobfile.read(job_file))
    job_file.write_text(f"# a comment\n{JOB}")
    same = jobfile.job_uid(jobfile.read(job_file))
    job_file.write_text(JOB + "  training: {seed: 1}\n")
    other = jobfile.job_uid(jobfile.read(job_file))

    assert (first == same, first == other) == (True, False)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param("{", "is not YAML", id="yaml"),
        pytest.param("kind: Pod", "holds 0 FineTuneJobs; expected one", id="kind"),
        pytest.param(f"{JOB}---\n{JOB}", "holds 2 FineTuneJobs", id="two"),
        pytest.param(
            JOB.replace("v1alpha1", "v2"), "apiVersion is 'loraland.dev/v2'", id="version"
        ),
        pytest.param(JOB.replace("name: words", "title: x"), "metadata.name is missing", id="name"),
        pytest.param(JOB + "  lora: {rnak: 3}\n", "spec.lora.rnak: unknown field", id="unknown"),
        pytest.param(JOB + "  lora: {rank: 0}\n", "spec.lora.rank", id="bounds"),
        pytest.param(
            JOB.replace('    completion: "{upper}"\n', ""),
            "give prompt and completion, or messages alone",
            id="rule",
        ),
        pytest.param(
            JOB + "    filter: [{column: a, operator: Gt, values: [many]}]\n",
            "Gt and Lt take one number",
            id="filter-number",
        ),
        pytest.param(
            JOB + "    filter: [{column: a, operator: Exists, values: [b]}]\n",
            "Exists and DoesNotExist take no values",
            id="filter-values",
        ),
        pytest.param(
            JOB + "    filter: [{column: a, operator: Like}]\n", "Unsupported value", id="operator"
        ),
    ],
)
def test_what_an_apply_would_refuse_is_refused(job_file: Path, text: str, part: str) -> None:
    """With the file's name and the field's."""
    job_file.write_text(text)

    with pytest.raises(InvalidInput) as caught:
        jobfile.read(job_file)

    assert str(caught.value).startswith(f"{job_file}: ")
    assert part in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        jobfile.read(tmp_path / "absent.yaml")
