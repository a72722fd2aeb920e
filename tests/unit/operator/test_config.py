"""The operator's settings."""

from typing import Any

import pytest
from loraland_core.errors import InvalidInput
from loraland_operator import config

ENVIRONMENT = {
    "LORALAND_TRAINER_IMAGE": "loraland/trainer",
    "LORALAND_STORE_BUCKET": "bucket",
    "LORALAND_REDIS_URL": "redis://redis:6379/0",
}


def test_defaults() -> None:
    """What need not be said."""
    found = config.read(ENVIRONMENT)

    assert found.watch_namespaces == ()
    assert (found.liveness_port, found.metrics_port, found.log_format) == (8080, 9090, "text")
    assert str(found.catalogue_file) == "/etc/loraland/catalogue/catalogue.yaml"


def test_namespaces_are_a_list() -> None:
    """Blanks and trailing commas do no harm."""
    found = config.read(ENVIRONMENT | {"LORALAND_WATCH_NAMESPACES": "a, b,"})

    assert found.watch_namespaces == ("a", "b")


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_missing_setting_is_named(name: str) -> None:
    """What has no sensible default must be set."""
    with pytest.raises(InvalidInput, match=f"{name}: (is not|must be) set"):
        config.read({k: v for k, v in ENVIRONMENT.items() if k != name})


@pytest.mark.parametrize(
    "change",
    [
        {"LORALAND_METRICS_PORT": "many"},
        {"LORALAND_NUM_WORKERS": "0"},
        {"LORALAND_SWEEP": "perhaps"},
        {"LORALAND_SWEEP_EVERY_S": "5"},
        {"LORALAND_LOG_FORMAT": "xml"},
    ],
    ids=str,
)
def test_senseless_setting_is_named(change: dict[str, Any]) -> None:
    """A wrong value is shown with what was expected."""
    (name,) = change
    with pytest.raises(InvalidInput, match=f"{name}: expected .* found"):
        config.read(ENVIRONMENT | change)
