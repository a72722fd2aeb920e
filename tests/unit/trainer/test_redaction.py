"""Secrets stay out of logs, tracebacks and termination messages."""

import json
import logging
from pathlib import Path

import pytest
from loraland_core.errors import InvalidInput
from loraland_trainer import main, redaction
from loraland_trainer.redaction import Redactor

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
    "DATASET_AWS_SESSION_TOKEN": "FwoGZXIvYXdzEJr",
    "HF_TOKEN": "hf_abcdefghijkl",
    "WANDB_API_KEY": "0123456789abcdef",
    "MLFLOW_TRACKING_PASSWORD": "correct horse",
}


@pytest.mark.parametrize("name", SECRETS)
def test_values_of_secret_variables_are_hidden(name: str) -> None:
    """Whoever prints them, and whatever stands around them."""
    said = Redactor(SECRETS).redact(f"cannot log in with '{SECRETS[name]}'.")

    assert said == "cannot log in with '[hidden]'."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "GET https://me:pass@hub.example/x failed",
            "GET https://[hidden]@hub.example/x failed",
            id="user-in-a-url",
        ),
        pytest.param(
            "https://s3/x?X-Amz-Date=1&X-Amz-Signature=abc123&y=2",
            "https://s3/x?X-Amz-Date=1&X-Amz-Signature=[hidden]&y=2",
            id="signed-url",
        ),
        pytest.param("row 3: a test of words", "row 3: a test of words", id="ordinary-text"),
    ],
)
def test_urls_lose_what_opens_them(text: str, expected: str) -> None:
    """The rest of the sentence stays, so that it can be acted upon."""
    assert expected == Redactor({}).redact(text)


def test_short_values_and_paths_are_no_secrets() -> None:
    """A word of the log is not hidden because a test's password is that word."""
    redactor = Redactor({"AWS_SECRET_ACCESS_KEY": "test", "TOKEN_FILE": "/var/run/token-file"})

    assert redactor.redact("test /var/run/token-file") == "test /var/run/token-file"


def test_tracebacks_are_formatted_without_secrets() -> None:
    """The handler's own format stays; exceptions pass through as well."""
    formatter = redaction.RedactingFormatter(logging.Formatter("%(message)s"), Redactor(SECRETS))
    try:
        raise ValueError(f"bad token {SECRETS['HF_TOKEN']}")
    except ValueError as error:
        found = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", None, found)

    said = formatter.format(record)

    assert "bad token [hidden]" in said
    assert SECRETS["HF_TOKEN"] not in said


def test_termination_messages_are_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What everybody may read in the status of the job."""
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])

    main.report_failure(InvalidInput(f"no user of {SECRETS['HF_TOKEN']}"), tmp_path / "message")

    said = json.loads((tmp_path / "message").read_text())["message"]
    assert said == "no user of [hidden]"
