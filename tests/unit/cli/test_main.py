"""The command's front."""

import subprocess
import sys
from pathlib import Path

import pytest
from loraland_cli import generate
from loraland_cli.console import Failure
from loraland_cli.demo.progress import describe
from loraland_cli.main import app
from typer.testing import CliRunner

COMMANDS = ["up", "down", "status", "logs", "generate", "sweep", "compare", "demo"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    """--help works for every command."""
    result = CliRunner().invoke(app, [command, "--help"])

    assert result.exit_code == 0


def test_help_imports_nothing_heavy() -> None:
    """The help is there at once because the work's modules are imported when asked for."""
    script = (
        "import sys, loraland_cli.main;"
        "print([m for m in ('torch', 'grpc', 'kubernetes', 'psutil') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "[]"


def test_fields_are_read_as_key_and_value() -> None:
    """Only the first sign of equality separates."""
    assert generate.parse_fields(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}


@pytest.mark.parametrize("field", ["novalue", "=x"])
def test_field_without_key_and_value_is_named(field: str) -> None:
    """The sentence shows what was typed."""
    with pytest.raises(Failure, match="--field wants KEY=VALUE, found"):
        generate.parse_fields([field])


def test_schema_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The sentence names the option and the file."""
    with pytest.raises(Failure, match=r"--json-schema .*absent\.json cannot be read"):
        generate.read_schema(tmp_path / "absent.json")


def test_more_than_one_form_is_refused() -> None:
    """An answer can have one form only."""
    with pytest.raises(Failure, match="at most one of --json-schema, --regex, --choice"):
        generate.run(
            None, prompt="x", adapter="", fields=[], options={"regex": "a", "choice": ["a"]}
        )


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        pytest.param({}, "", id="nothing-yet"),
        pytest.param({"loss": "0.5", "etaSeconds": 0}, "loss 0.5  ETA 0 s", id="some"),
        pytest.param({"tokensPerSecond": 300}, "300 tokens/s", id="speed"),
    ],
)
def test_progress_is_described_as_far_as_it_is_known(
    progress: dict[str, object], expected: str
) -> None:
    """Numbers that the status does not have are left out."""
    assert describe(progress) == expected


def test_purge_leaves_a_directory_of_others(tmp_path: Path) -> None:
    """A file named lock is no proof that a stack made it."""
    (tmp_path / "lock").touch()
    result = CliRunner().invoke(app, ["down", "--purge", "--state", str(tmp_path)])

    assert (result.exit_code, (tmp_path / "lock").exists()) == (1, True)
