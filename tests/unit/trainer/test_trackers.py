"""A tracker is used where it is installed, and missed before the training."""

import pytest
from loraland_core.errors import InvalidInput
from loraland_trainer import trackers


def test_no_tracker_is_asked_for_by_default() -> None:
    """An empty list."""
    assert trackers.integrations([]) == []


def test_installed_trackers_have_transformers_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the job's order."""
    known = {name: (v[0], lambda: True, v[2]) for name, v in trackers._KNOWN.items()}
    monkeypatch.setattr(trackers, "_KNOWN", known)

    found = trackers.integrations(["WandB", "MLflow"])

    assert found == ["wandb", "mlflow"]


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how it gets there."""
    monkeypatch.setitem(trackers._KNOWN, "MLflow", ("mlflow", lambda: False, "mlflow"))

    with pytest.raises(InvalidInput, match=r"MLflow is not installed .* `pip install mlflow`") as e:
        trackers.integrations(["MLflow"])

    assert e.value.field == "spec.training.reportTo"
