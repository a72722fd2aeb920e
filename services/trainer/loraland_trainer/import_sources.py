"""Where an adapter's files come from when they are imported: S3, a Hub, a volume.

Only the three files that serving reads are ever looked at, and none beyond its limit.
"""

import shutil
from pathlib import Path

from loraland_core import artifacts
from loraland_core.errors import InvalidInput, NotFound, Unavailable
from loraland_core.prompts import PROMPT_FILE
from loraland_core.resources.adapter import HuggingFaceSource, PvcSource, S3Source, SourceSpec
from loraland_core.store import Store, StoreConfig, parse_uri

from loraland_trainer.config import Config
from loraland_trainer.dataset import SourceUnavailable

REQUIRED = (artifacts.CONFIG_FILE, artifacts.WEIGHTS_FILE)
MAX_SMALL_FILE_BYTES = 256 * 1024
HUB_TIMEOUT_S = 30.0


def fetch(
    source: SourceSpec, target: Path, *, config: Config, store: StoreConfig, mount: Path
) -> None:
    """Write the adapter's files into ``target``; raise ``InvalidInput`` naming what is missing."""
    if source.s3 is not None:
        _from_s3(source.s3, target, config, store)
    elif source.hugging_face is not None:
        _from_hub(source.hugging_face, target, config)
    elif source.pvc is not None:
        _from_volume(source.pvc, target, mount)
    else:
        raise InvalidInput("one of s3, huggingFace and pvc is to be imported", field="spec.source")


def _limit_bytes(name: str) -> int:
    return artifacts.MAX_ARTIFACT_BYTES if name == artifacts.WEIGHTS_FILE else MAX_SMALL_FILE_BYTES


def _from_s3(source: S3Source, target: Path, config: Config, store: StoreConfig) -> None:
    bucket, prefix = parse_uri(source.uri)
    door = Store(
        store.model_copy(update={"bucket": bucket, "prefix": prefix}),
        credentials=config.source_credentials or None,
    )
    try:
        for name in (*REQUIRED, PROMPT_FILE):
            try:
                door.download(name, target / name, max_bytes=_limit_bytes(name))
            except NotFound as error:
                if name in REQUIRED:
                    raise _missing(name, source.uri, "spec.source.s3.uri") from error
                (target / name).unlink(missing_ok=True)
    except Unavailable as error:
        # Not the artifact store: the pod's end must not say so.
        raise SourceUnavailable(str(error)) from error
    finally:
        door.close()


def _from_hub(source: HuggingFaceSource, target: Path, config: Config) -> None:
    # Imported here: only this source needs the client.
    from huggingface_hub import HfApi, hf_hub_download  # noqa: PLC0415
    from huggingface_hub import errors as hub_errors  # noqa: PLC0415

    where = f"{source.repo}@{source.revision or 'main'}"
    field = "spec.source.huggingFace"
    try:
        info = HfApi(token=config.hub_token).model_info(
            source.repo, revision=source.revision, timeout=HUB_TIMEOUT_S, files_metadata=True
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        for name in (*REQUIRED, PROMPT_FILE):
            if name not in sizes:
                if name in REQUIRED:
                    raise _missing(name, where, field)
                continue
            _check_size(name, sizes[name], where, field)
            path = hf_hub_download(
                source.repo,
                name,
                revision=info.sha,
                token=config.hub_token,
                etag_timeout=HUB_TIMEOUT_S,
            )
            shutil.copyfile(path, target / name)
    except (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError) as error:
        # A gated repository answers so too: the Hub does not tell strangers that it exists.
        raise InvalidInput(
            f"the Hub knows no {where}, or the token may not read it; check the id, the revision"
            " and the credentials",
            field=field,
            reason="SourceNotFound",
        ) from error
    except InvalidInput:
        raise
    # Whatever its transport raises; which HTTP library that is changes with its versions.
    except Exception as error:
        raise SourceUnavailable(
            f"the Hugging Face Hub does not answer for {where}: {error}"
        ) from error


def _from_volume(source: PvcSource, target: Path, mount: Path) -> None:
    root = mount.resolve()
    folder = (root / source.path.lstrip("/")).resolve()
    field = "spec.source.pvc.path"
    if not folder.is_relative_to(root):
        raise InvalidInput(
            f"{source.path!r} leads out of the volume", field=field, reason="SourceNotFound"
        )
    for name in (*REQUIRED, PROMPT_FILE):
        path = (folder / name).resolve()
        if not path.is_file() or not path.is_relative_to(root):
            if name in REQUIRED:
                raise _missing(name, f"{source.path!r} of claim {source.claim}", field)
            continue
        _check_size(name, path.stat().st_size, source.path, field)
        shutil.copyfile(path, target / name)


def _check_size(name: str, size_bytes: int, where: str, field: str) -> None:
    if size_bytes > _limit_bytes(name):
        raise InvalidInput(
            f"{name} in {where} has {size_bytes} bytes, more than {_limit_bytes(name)}",
            field=field,
            reason="ArtifactTooLarge",
        )


def _missing(name: str, where: str, field: str) -> InvalidInput:
    return InvalidInput(
        f"there is no {name} in {where}; an adapter is imported as PEFT saves it, in safetensors",
        field=field,
        reason="SourceNotFound",
    )
