"""Experiment trackers, told of every step by Transformers' own integrations. Only what is installed.

Where a tracker lies, and as whom it is written to, its own variables say (``MLFLOW_TRACKING_URI``,
``WANDB_API_KEY``); a job sets them in ``pod.env``, from a Secret where they are secret.
"""

from collections.abc import Callable, Sequence

from loraland_core.errors import InvalidInput
from transformers.integrations import is_mlflow_available, is_wandb_available

# Transformers' name, whether it is here, and what pip installs.
_KNOWN: dict[str, tuple[str, Callable[[], bool], str]] = {
    "MLflow": ("mlflow", is_mlflow_available, "mlflow"),
    "WandB": ("wandb", is_wandb_available, "wandb"),
}


def integrations(names: Sequence[str]) -> list[str]:
    """Return Transformers' names of the trackers; raise ``InvalidInput`` for one that is not here."""
    for name in names:
        _, is_available, package = _KNOWN[name]
        if not is_available():
            raise InvalidInput(
                f"{name} is not installed in the trainer's image: add `pip install {package}` to an"
                " image of your own, or take it from the list",
                field="spec.training.reportTo",
                reason="TrackerMissing",
            )
    return [_KNOWN[name][0] for name in names]
