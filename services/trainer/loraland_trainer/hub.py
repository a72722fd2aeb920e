"""The Hugging Face Hub's data sets: the only caller of the ``datasets`` library."""

import re
from typing import Any

import datasets
from huggingface_hub import errors as hub_errors
from loraland_core.errors import InvalidInput
from loraland_core.resources.dataset import HuggingFaceDataset

from loraland_trainer.dataset import SourceUnavailable

MAX_ATTEMPTS = 3
_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


def read_split(
    source: HuggingFaceDataset, split: str, *, token: str | None
) -> list[dict[str, Any]]:
    """Return all rows of one split; data sets that need code of their own are refused."""
    if not _ID.match(source.repo):
        # The library would also take a path of the pod.
        raise InvalidInput(
            f"{source.repo!r} is no data set id, such as owner/name",
            field="spec.dataset.huggingFace.repo",
            reason="DatasetNotFound",
        )
    where = f"{source.repo}@{source.revision or 'main'}"
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(
            source.repo,
            name=source.config,
            split=split,
            revision=source.revision,
            token=token,
            download_config=datasets.DownloadConfig(max_retries=MAX_ATTEMPTS, token=token),
        )
    except (
        datasets.exceptions.DatasetNotFoundError,
        hub_errors.RepositoryNotFoundError,
        hub_errors.RevisionNotFoundError,
    ) as error:
        raise InvalidInput(
            f"the Hub knows no data set {where}, or the token may not read it; check the id, the"
            " revision and the credentials",
            field="spec.dataset.huggingFace",
            reason="DatasetNotFound",
        ) from error
    # A wrong configuration or split, and a data set that is a script.
    except (ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"{where}: {error}", field="spec.dataset.huggingFace", reason="DatasetNotFound"
        ) from error
    except (OSError, hub_errors.HfHubHTTPError) as error:
        raise SourceUnavailable(
            f"the Hugging Face Hub does not answer for {where}: {error}"
        ) from error
    return [dict(row) for row in loaded]
