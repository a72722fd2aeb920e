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


def test_launcher_that_cannot_start_the_others_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What fails before there is a second process ends with a message as well."""
    monkeypatch.setattr(main.logs, "configure", lambda **_: None)
    monkeypatch.setattr(main.noise, "hush", lambda: None)
    monkeypatch.setenv("LORALAND_NUM_NODES", "two")
    monkeypatch.setenv("LORALAND_TERMINATION_LOG", str(tmp_path / "message"))

    exit_code = main.main()

    said = json.loads((tmp_path / "message").read_text())["message"]
    assert (exit_code, said.startswith("LORALAND_NUM_NODES: is 'two'")) == (42, True)
