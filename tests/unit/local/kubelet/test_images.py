"""Image names and the commands they stand for."""

import pytest
from loraland_local.kubelet import images

TEXT = """{"images": {
    "loraland/trainer": {"entrypoint": ["python", "-m", "loraland_trainer"], "env": {"A": "1"}},
    "trainer": {"entrypoint": ["other"]},
    "busybox": {}
}}"""


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        pytest.param("loraland/trainer", "python", id="plain"),
        pytest.param("ghcr.io/x/loraland/trainer:0.1.0", "python", id="registry-and-tag"),
        pytest.param("localhost:5000/loraland/trainer", "python", id="registry-with-port"),
        pytest.param("loraland/trainer@sha256:abc", "python", id="digest"),
        pytest.param("somebody/trainer", "other", id="shorter-name"),
        pytest.param("my-trainer", None, id="not-a-part-of-a-word"),
    ],
)
def test_image_is_found_by_its_repository(reference: str, expected: str | None) -> None:
    """Registry, tag and digest do not matter, and the longest name wins."""
    found = images.parse(TEXT).find(reference)

    assert (found.entrypoint[0] if found else None) == expected


def test_image_may_bring_no_entrypoint() -> None:
    """An empty entry stands for the bare machine."""
    assert images.parse(TEXT).find("busybox:1.37") == images.Image((), {})


def test_unusable_map_is_refused() -> None:
    """A file of another form is named as such."""
    with pytest.raises(ValueError, match="image map"):
        images.parse("[]")
