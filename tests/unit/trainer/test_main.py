"""What ends a training pod before it has read its job."""

import json
from pathlib import Path

import pytest
from loraland_trainer import main


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LORALAND_LOG_LEVEL", "loud"), ("LORALAND_PROGRESS_PORT", "http")],
)
def test_senseless_setting_ends_the_job_with_a_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str
) -> None:
    """It is not tried again, and the person who set it reads which variable it is."""
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("LORALAND_TERMINATION_LOG", str(tmp_path / "message"))

    exit_code = main.main()

    said = json.loads((tmp_path / "message").read_text())["message"]
    assert (exit_code, said.startswith(f"{variable}: is {value!r}")) == (42, True)
