"""An import from its file to its result: fetch, check, describe, upload. Manifest last.

What the engine would refuse to load is refused here, with the same sentence, so that a wrong adapter
is known before it is served. The platform's own name for the base model replaces the folder of
whoever trained it.
"""

import json
import logging
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from loraland_core import artifacts, imports, prompts
from loraland_core.artifacts import File, Manifest
from loraland_core.errors import NotFound, Unavailable
from loraland_core.imports import ImportResult, ImportSpec
from loraland_core.prompts import PROMPT_FILE, PromptTemplate
from loraland_core.store import Store
from loraland_engine import adapter_file, lora
from loraland_models import revisions, sources
from loraland_models.sources import ResolvedModel
from transformers import AutoConfig, AutoModelForCausalLM

from loraland_trainer import import_sources, orders, patience
from loraland_trainer.config import Config
from loraland_trainer.dataset import SourceUnavailable

log = logging.getLogger(__name__)
TRAINED_ELSEWHERE = "imported"


def read_spec(path: Path) -> ImportSpec:
    return imports.parse_import(orders.read(path))


def run(spec: ImportSpec, config: Config) -> None:
    """Import the adapter unless its result is there already."""
    store = Store(spec.store)
    try:
        if _is_done(store, spec):
            log.info("%s/%s is imported already; nothing to do", spec.namespace, spec.name)
            return
        with tempfile.TemporaryDirectory(prefix="loraland-") as name:
            folder = Path(name)
            import_sources.fetch(
                spec.source, folder, config=config, store=spec.store, mount=config.source_mount
            )
            base_model = _resolve(spec, config)
            manifest = prepare(folder, spec, base_model, now=datetime.now(UTC))
            upload = partial(_upload, store, folder, spec, manifest)
            patience.insist("the upload of the adapter", upload)
    finally:
        store.close()


def _is_done(store: Store, spec: ImportSpec) -> bool:
    """Return whether an earlier attempt left its result, and the artifact is still there."""
    try:
        result = imports.parse_result(store.read(spec.result_key))
    except NotFound:
        return False
    prefix = artifacts.adapter_prefix(spec.namespace, spec.name, result.digest)
    # The sweep removes digests beyond the history, and leaves results.
    return store.exists(prefix + artifacts.MANIFEST_FILE)


def prepare(
    folder: Path, spec: ImportSpec, base_model: ResolvedModel, *, now: datetime
) -> Manifest:
    """Check the files, make them the platform's own, and return what describes them."""
    config = adapter_file.read_config(folder / artifacts.CONFIG_FILE)
    adapter = adapter_file.load_adapter(
        folder, find_linears(base_model), max_rank=spec.entry.limits.max_rank
    )
    _rename_base_model(folder / artifacts.CONFIG_FILE, spec)
    prompt = folder / PROMPT_FILE
    if prompt.exists():
        prompts.parse_prompt(prompt.read_bytes())
    else:
        # Whoever calls it writes the whole prompt.
        prompt.write_bytes(PromptTemplate(kind="fields", template="{prompt}").to_json())
    files = [
        File(
            path=name,
            size_bytes=(folder / name).stat().st_size,
            sha256=revisions.hash_file(folder / name),
        )
        for name in artifacts.SERVED_FILES
    ]
    return Manifest(
        base_model=spec.base_model,
        resolved_revision=base_model.revision,
        training_precision=TRAINED_ELSEWHERE,
        rank=adapter.rank,
        alpha=config.alpha,
        target_modules=sorted({name.rsplit(".", 1)[-1] for name in adapter.weights}),
        dtype="float32",
        files=files,
        created_at=artifacts.now_text(now),
    )


def find_linears(base_model: ResolvedModel) -> dict[str, tuple[int, int]]:
    """Return (in, out) of each linear that an adapter may change, without the weights."""
    config = AutoConfig.from_pretrained(base_model.directory, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return {
        name: (int(linear.in_features), int(linear.out_features))  # type: ignore[arg-type]
        for name, linear in lora.find_linears(model).items()
    }


def _resolve(spec: ImportSpec, config: Config) -> ResolvedModel:
    try:
        return sources.resolve(
            spec.base_model,
            spec.entry,
            cache_dir=config.cache_dir,
            store=spec.store,
            report=log.info,
            without_weights=True,
        )
    except Unavailable as error:
        # Not the artifact store: the pod's end must not say so.
        raise SourceUnavailable(str(error)) from error


def _rename_base_model(path: Path, spec: ImportSpec) -> None:
    document = json.loads(path.read_text())
    hub = spec.entry.source.hub
    document["base_model_name_or_path"] = hub.repo if hub else spec.base_model
    document["revision"] = hub.revision if hub else None
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def _upload(store: Store, folder: Path, spec: ImportSpec, manifest: Manifest) -> None:
    """Upload the files, then the manifest, then the result; each is the commit of what precedes."""
    prefix = artifacts.adapter_prefix(spec.namespace, spec.name, manifest.digest)
    for file in manifest.files:
        store.upload(folder / file.path, prefix + file.path)
    store.write(prefix + artifacts.MANIFEST_FILE, manifest.to_json())
    result = ImportResult(digest=manifest.digest, uri=store.uri(prefix))
    store.write(spec.result_key, result.to_json())
    log.info("artifact %s committed at %s", manifest.digest[:12], result.uri)
