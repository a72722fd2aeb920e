"""The kubelet's settings."""

import pathlib

import pytest
from loraland_local.kubelet import config

NEEDED = ["--state", "state", "--images", "images.json"]


def test_containers_get_a_chosen_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the kubelet's own variables only a few are passed down, and never a credential."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("HOME", "/home/me")
    found = config.read(NEEDED).base_environment

    assert found["HOME"] == "/home/me"
    assert "AWS_SECRET_ACCESS_KEY" not in found
    assert {"PATH", "LANG"} <= set(found)


def test_capacity_and_labels_are_pairs() -> None:
    """Repeated options become mappings, and paths absolute."""
    found = config.read(
        [*NEEDED, "--capacity", "nvidia.com/gpu=1", "--capacity", "cpu=8", "--label", "a=b"]
    )

    assert found.capacity == {"nvidia.com/gpu": "1", "cpu": "8"}
    assert found.labels == {"a": "b"}
    assert (found.state, found.cache) == (
        pathlib.Path("state").absolute(),
        pathlib.Path("state/cache").absolute(),
    )


def test_bad_pair_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """An option without a value is quoted."""
    with pytest.raises(SystemExit):
        config.read([*NEEDED, "--capacity", "cpu"])

    assert "'cpu': expected NAME=VALUE" in capsys.readouterr().err
