"""An adapter that is imported from a Hub: a small one of the tests' own, asked by the real client."""

import json
from collections.abc import Iterator
from pathlib import Path

import hub_server
import pytest
import trainer_jobs
from hub_server import Fault, Hub, Repository
from loraland_core.errors import InvalidInput
from loraland_core.resources.adapter import SourceSpec
from loraland_core.store import StoreConfig
from loraland_trainer import import_sources
from loraland_trainer.dataset import SourceUnavailable

FILES = {
    "adapter_config.json": json.dumps({"peft_type": "LORA", "r": 4}).encode(),
    "adapter_model.safetensors": b"weights of the second version",
    "README.md": b"# Not asked for",
}
EARLIER = FILES | {"adapter_model.safetensors": b"weights of the first version"}


@pytest.fixture
def the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with an open, a gated and a private adapter, and one that holds a pickle."""
    with hub_server.running() as found:
        found.add_model("zoo/desk", Repository({"main": FILES, "v1": EARLIER}))
        found.add_model("zoo/gated", Repository({"main": FILES}, gated=True))
        found.add_model("zoo/private", Repository({"main": FILES}, private=True))
        found.add_model("zoo/pickle", {"adapter_config.json": b"{}", "adapter_model.bin": b"x"})
        hub_server.point_here(found, monkeypatch, tmp_path / "cache")
        yield found


def fetch(folder: Path, repo: str, *, token: str | None = None, **source: str) -> dict[str, bytes]:
    """Fetch in this process; return the files that came."""
    target = folder / "fetched"
    target.mkdir()
    import_sources.fetch(
        SourceSpec.model_validate({"huggingFace": {"repo": repo, **source}}),
        target,
        config=trainer_jobs.build_config(folder, hub_token=token),
        store=StoreConfig(bucket="unused"),
        mount=folder,
    )
    return hub_server.read_folder(target)


def test_what_serving_needs_is_fetched(the_hub: Hub, tmp_path: Path) -> None:
    """PEFT's two files; nothing else of the repository is asked for."""
    found = fetch(tmp_path, "zoo/desk")

    assert found == {name: content for name, content in FILES.items() if name != "README.md"}
    assert not any("README" in request.path for request in the_hub.requests)


def test_revision_is_the_one_of_the_spec(the_hub: Hub, tmp_path: Path) -> None:
    """A tag is read at its commit."""
    found = fetch(tmp_path, "zoo/desk", revision="v1")

    assert found["adapter_model.safetensors"] == EARLIER["adapter_model.safetensors"]
    assert the_hub.requests


@pytest.mark.parametrize("repo", ["zoo/gated", "zoo/private"])
def test_token_of_the_namespace_opens_what_is_not_public(
    the_hub: Hub, tmp_path: Path, repo: str
) -> None:
    """It goes along with every request for the repository."""
    found = fetch(tmp_path, repo, token=hub_server.TOKEN)

    asked = {r.authorization for r in the_hub.requests if repo in r.path}
    assert "adapter_model.safetensors" in found
    assert asked == {f"Bearer {hub_server.TOKEN}"}


@pytest.mark.usefixtures("the_hub")
@pytest.mark.parametrize(
    ("repo", "source", "words"),
    [
        pytest.param("zoo/absent", {}, "knows no zoo/absent@main", id="absent"),
        pytest.param("zoo/desk", {"revision": "v9"}, "knows no zoo/desk@v9", id="revision"),
        pytest.param("zoo/private", {}, "the token may not read it", id="private"),
        pytest.param("zoo/gated", {}, "the token may not read it", id="gated"),
        pytest.param("zoo/pickle", {}, "no adapter_model.safetensors", id="pickle"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    tmp_path: Path, repo: str, source: dict[str, str], words: str
) -> None:
    """The pod ends with exit code 42, and the Adapter's condition says what to correct."""
    with pytest.raises(InvalidInput, match=words) as caught:
        fetch(tmp_path, repo, **source)

    assert (caught.value.reason, caught.value.field) == (
        "SourceNotFound",
        "spec.source.huggingFace",
    )


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_hub_is_another_attempts_business(the_hub: Hub, tmp_path: Path, status: int) -> None:
    """It is not the adapter's fault, nor the artifact store's: the Job tries again."""
    the_hub.faults.append(Fault(status, times=1000))

    with pytest.raises(SourceUnavailable, match="does not answer for zoo/desk@main"):
        fetch(tmp_path, "zoo/desk")
