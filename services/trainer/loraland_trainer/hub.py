"""The Hugging Face Hub's data sets: the only caller of the ``datasets`` library.

The Hub is first asked which commit the revision is and whether the token may read it, so that what
is wrong is said as the Hub means it; the library then reads that very commit. ``HF_ENDPOINT`` names
another Hub.
"""

import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import datasets
from huggingface_hub import HfApi, get_session
from huggingface_hub import errors as hub_errors
from loraland_core.errors import InvalidInput, Unavailable
from loraland_core.resources.dataset import HuggingFaceDataset

from loraland_trainer.rows import Row

log = logging.getLogger(__name__)
T = TypeVar("T")
MAX_ATTEMPTS = 5
TIMEOUT_S = 30.0
FIRST_DELAY_S = 1.0
# A Hub that wants more patience than this is left to the retries of the job.
LONGEST_DELAY_S = 120.0
FIELD = "spec.dataset.huggingFace"
_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
_OVERLOADED = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Repository:
    """A data set at one commit."""

    source: HuggingFaceDataset
    commit: str
    token: str | None = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.source.repo}@{self.commit[:12]}"

    def read_split(self, split: str, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of a split from disk, with such of the columns as it has.

        Data sets that need code of their own are refused.
        """
        loaded = _insist(self.name, lambda: self._load(split))
        present = [name for name in loaded.column_names if _is_wanted(name, columns)]
        for row in loaded.select_columns(present) if present else loaded:
            yield dict(row)

    def _load(self, split: str) -> Any:
        datasets.disable_progress_bars()
        try:
            return datasets.load_dataset(
                self.source.repo,
                name=self.source.config,
                split=split,
                revision=self.commit,
                token=self.token,
                download_config=datasets.DownloadConfig(max_retries=MAX_ATTEMPTS, token=self.token),
            )
        except datasets.exceptions.DatasetNotFoundError as error:
            raise _refusal(f"{self.name}: {error}") from error
        # A wrong configuration or split, no data files, and a data set that is a script.
        except (ValueError, RuntimeError) as error:
            raise _refusal(f"{self.name}: {error}") from error


def open_repository(source: HuggingFaceDataset, *, token: str | None) -> Repository:
    """Return the data set at the commit that its revision names now.

    Raises ``InvalidInput`` for what the Hub does not know or does not show, and ``Unavailable``
    where it does not answer.
    """
    if not _ID.match(source.repo):
        # The library would also take a path of the pod.
        raise InvalidInput(
            f"{source.repo!r} is no data set id, such as owner/name",
            field=f"{FIELD}.repo",
            reason="DatasetNotFound",
        )
    api = HfApi(token=token)
    where = f"{source.repo}@{source.revision or 'main'}"

    def ask() -> str:
        try:
            info = api.dataset_info(source.repo, revision=source.revision, timeout=TIMEOUT_S)
            api.auth_check(source.repo, repo_type="dataset")
        # Before the class of what is not found, of which it is a kind.
        except hub_errors.GatedRepoError as error:
            raise _gated(source.repo, api.endpoint, has_token=token is not None) from error
        except hub_errors.RepositoryNotFoundError as error:
            raise _refusal(
                f"the Hub knows no data set {where}, or the token may not read it; check the id and"
                " the credentials (HF_TOKEN of the Secret in dataset.credentialsSecretRef)"
            ) from error
        except hub_errors.RevisionNotFoundError as error:
            raise InvalidInput(
                f"{source.repo} has no revision {source.revision!r}; name a branch, a tag or a"
                " commit of it",
                field=f"{FIELD}.revision",
                reason="DatasetNotFound",
            ) from error
        except hub_errors.HfHubHTTPError as error:
            if error.response is not None and error.response.status_code == 401:
                raise _refusal(
                    f"the Hub refuses the token for {where}: renew HF_TOKEN in the Secret of"
                    " dataset.credentialsSecretRef"
                ) from error
            raise
        return str(info.sha)

    repository = Repository(source, commit=_insist(where, ask), token=token)
    log.info("data set %s is at commit %s", where, repository.commit)
    return repository


def _insist(where: str, act: Callable[[], T]) -> T:
    """Return what ``act`` returns; try again while the Hub is overloaded or away."""
    delay_s = FIRST_DELAY_S
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            # The libraries' own calls would wait for ever for a Hub that accepts and says nothing.
            # Each time: they make themselves a new session after an error.
            get_session().timeout = TIMEOUT_S
            return act()
        except InvalidInput:
            raise
        # Whatever its transport raises; which HTTP library that is changes with its versions.
        except Exception as error:
            wait_s = _retry_after_s(error) or delay_s * random.uniform(0.5, 1)  # noqa: S311 -- no secret
            is_lasting = _status(error) not in (None, *_OVERLOADED)
            if attempt == MAX_ATTEMPTS or is_lasting or wait_s > LONGEST_DELAY_S:
                raise Unavailable(
                    f"the Hugging Face Hub does not answer for {where}: {_first_line(error)}",
                    retry_after_s=wait_s,
                ) from error
            log.warning(
                "the Hub did not answer for %s (attempt %d of %d), again in %.0f s: %s",
                where,
                attempt,
                MAX_ATTEMPTS,
                wait_s,
                _first_line(error),
            )
            time.sleep(wait_s)
            delay_s *= 2
    raise AssertionError("the last attempt returns or raises")


def _status(error: Exception) -> int | None:
    """Return the HTTP status that an error tells of; None where there was no answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _retry_after_s(error: Exception) -> float:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    text = str(headers.get("Retry-After") or "")
    return float(text) if text.isdecimal() else 0.0


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _is_wanted(name: str, columns: Sequence[str]) -> bool:
    return any(name == column or column.startswith(f"{name}.") for column in columns)


def _refusal(message: str) -> InvalidInput:
    return InvalidInput(message, field=FIELD, reason="DatasetNotFound")


def _gated(repo: str, endpoint: str, *, has_token: bool) -> InvalidInput:
    page = f"{endpoint}/datasets/{repo}"
    todo = (
        f"the account of the token has no access: ask for it at {page}"
        if has_token
        else f"accept its terms at {page} and give the account's token as HF_TOKEN in the Secret of"
        " dataset.credentialsSecretRef"
    )
    return InvalidInput(f"{repo} is gated; {todo}", field=f"{FIELD}.repo", reason="DatasetGated")
