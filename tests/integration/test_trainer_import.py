"""Imports of adapters against a real S3 server: what they leave, and what they refuse."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_base
import trainer_jobs
from loraland_core import artifacts, imports, jobspec, prompts
from loraland_core.imports import ImportSpec
from loraland_core.resources.adapter import SourceSpec
from loraland_core.store import Store, StoreConfig
from loraland_trainer import main
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

UID = "uid-1"


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base.write_base_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def adapter_folder(base_folder: Path, tmp_path: Path) -> Path:
    """An adapter as PEFT saves it."""
    base = AutoModelForCausalLM.from_pretrained(base_folder)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    folder = tmp_path / "theirs"
    get_peft_model(base, config).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Scene:
    """A volume with an adapter, a base model, the platform's bucket; and pods that import."""

    base: Path
    adapter: Path
    config: StoreConfig
    store: Store
    folder: Path

    def run(self, source: dict[str, Any], *, mount: Path | None = None) -> tuple[int, str]:
        """Import in this process; return exit code and what it said at its end."""
        self.folder.mkdir(exist_ok=True)
        config = trainer_jobs.build_config(self.folder, source_mount=mount or self.adapter.parent)
        spec = ImportSpec(
            name="theirs",
            namespace="default",
            uid=UID,
            base_model="tiny",
            entry=trainer_jobs.build_entry(self.base),
            source=SourceSpec.model_validate(source),
            store=self.config,
        )
        config.import_file.write_text(spec.to_json())
        exit_code = main.attempt_import(config)
        text = config.termination_log.read_text() if config.termination_log.exists() else ""
        said = jobspec.parse_termination_message(text)
        return exit_code, f"{said.reason}: {said.message}" if said else ""

    def result(self, source: dict[str, Any]) -> imports.ImportResult:
        key = imports.result_key(UID, imports.source_hash(SourceSpec.model_validate(source)))
        return imports.parse_result(self.store.read(key))


@pytest.fixture
def scene(
    store: Store, store_config: StoreConfig, base_folder: Path, adapter_folder: Path, tmp_path: Path
) -> Scene:
    return Scene(base_folder, adapter_folder, store_config, store, tmp_path / "pod")


def volume(folder: Path) -> dict[str, Any]:
    return {"pvc": {"claim": "disk", "path": f"/{folder.name}"}}


def test_volume_becomes_an_artifact(scene: Scene, tmp_path: Path) -> None:
    """Manifest, files and result agree; PEFT loads what was uploaded."""
    source = volume(scene.adapter)
    exit_code, said = scene.run(source)
    result = scene.result(source)
    prefix = scene.store.key(result.uri)
    manifest = artifacts.parse_manifest(
        scene.store.read(prefix + artifacts.MANIFEST_FILE), expected_digest=result.digest
    )
    downloaded = tmp_path / "back"
    downloaded.mkdir()
    for file in manifest.served_files:
        scene.store.download(prefix + file.path, downloaded / file.path, max_bytes=file.size_bytes)
    base = AutoModelForCausalLM.from_pretrained(scene.base)

    assert (exit_code, said, manifest.rank) == (0, "", 4)
    assert manifest.target_modules == ["q_proj", "v_proj"]
    assert PeftModel.from_pretrained(base, downloaded).peft_config["default"].r == 4
    prompt = prompts.parse_prompt((downloaded / prompts.PROMPT_FILE).read_bytes())
    assert prompt.template == "{prompt}"


def test_bucket_becomes_the_same_artifact(scene: Scene) -> None:
    """The digest says what an adapter is, not where it came from."""
    for path in scene.adapter.iterdir():
        scene.store.upload(path, f"elsewhere/{path.name}")
    there = {"s3": {"uri": scene.store.uri("elsewhere/")}}
    here = volume(scene.adapter)

    assert (scene.run(there), scene.run(here)) == ((0, ""), (0, ""))
    assert scene.result(there).digest == scene.result(here).digest


def test_second_attempt_finds_the_result(scene: Scene) -> None:
    """A pod that is started again has nothing to do, even if the source is gone meanwhile."""
    source = volume(scene.adapter)
    scene.run(source)
    (scene.adapter / artifacts.WEIGHTS_FILE).unlink()

    assert scene.run(source) == (0, "")


def test_artifact_that_was_swept_is_imported_again(scene: Scene) -> None:
    """A result whose artifact is gone is no result."""
    source = volume(scene.adapter)
    scene.run(source)
    manifest = scene.store.key(scene.result(source).uri) + artifacts.MANIFEST_FILE
    scene.store.delete(manifest)

    assert scene.run(source) == (0, "")
    assert scene.store.exists(manifest)


def _drop_weights(folder: Path) -> None:
    (folder / artifacts.WEIGHTS_FILE).rename(folder / "adapter_model.bin")


def _change_config(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / artifacts.CONFIG_FILE
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _lie_in_header(folder: Path) -> None:
    path = folder / artifacts.WEIGHTS_FILE
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])


def _link_outside(folder: Path) -> None:
    path = folder / artifacts.WEIGHTS_FILE
    path.unlink()
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        pytest.param(_drop_weights, "adapter_model.safetensors", id="pickled"),
        pytest.param(_change_config(use_dora=True), "use_dora", id="dora"),
        pytest.param(_change_config(peft_type="IA3"), "IA3", id="not-lora"),
        pytest.param(_change_config(r=8), "do not fit rank 8", id="rank-and-weights-differ"),
        pytest.param(_lie_in_header, "adapter_model.safetensors", id="lying-header"),
        pytest.param(_link_outside, "adapter_model.safetensors", id="link-out-of-the-volume"),
    ],
)
def test_what_cannot_be_served_is_refused(scene: Scene, spoil: Any, wanted: str) -> None:
    """It ends for good, says what is wrong, and leaves nothing."""
    spoil(scene.adapter)

    exit_code, said = scene.run(volume(scene.adapter))

    assert (exit_code, wanted in said) == (jobspec.ExitCode.INVALID_JOB, True), said
    assert list(scene.store.find_objects("")) == []


@pytest.mark.parametrize("path", ["../..", "/nowhere"], ids=["up", "absent"])
def test_folder_must_be_in_the_volume(scene: Scene, path: str) -> None:
    """A path of the volume, and nothing beside it."""
    exit_code, said = scene.run({"pvc": {"claim": "disk", "path": path}}, mount=scene.adapter)

    assert (exit_code, "spec.source.pvc.path" in said) == (jobspec.ExitCode.INVALID_JOB, True), said
