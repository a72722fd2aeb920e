"""The catalogue names the base models of an installation."""

import pytest
from loraland_core import catalogue
from loraland_core.errors import InvalidInput

TEXT = """
schemaVersion: 1
baseModels:
  tiny:
    source: {embedded: tiny}
    serving: {quantization: nf4, dtype: float32}
  mistral-7b:
    source: {hub: {repo: mistralai/Mistral-7B-v0.1, revision: abc}}
    serving: {quantization: none}
"""


def test_entry_is_found_by_name() -> None:
    """A name of the catalogue gives its entry, with defaults filled in."""
    entry = catalogue.parse(TEXT).find("mistral-7b")

    assert entry.source.hub is not None
    assert (entry.source.hub.revision, entry.training.dtype) == ("abc", "bf16")


@pytest.mark.parametrize(("name", "expected"), [("tiny", "nf4"), ("mistral-7b", "bf16")])
def test_serving_precision_has_one_word(name: str, expected: str) -> None:
    """Reports name the precision that answers."""
    assert expected == catalogue.parse(TEXT).find(name).serving.label


def test_unknown_name_is_answered_with_the_known_ones() -> None:
    """A typo is mended without leaving the terminal."""
    with pytest.raises(InvalidInput, match="it knows: mistral-7b, tiny") as caught:
        catalogue.parse(TEXT).find("mistral")

    assert caught.value.reason == "UnknownBaseModel"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param(": :", "not YAML", id="not-yaml"),
        pytest.param("[]", "expected a mapping", id="a-list"),
        pytest.param("schemaVersion: 2", "only 1", id="newer"),
        pytest.param("baseModels: {}", "baseModels", id="empty"),
        pytest.param(
            "baseModels: {tiny: {source: {}}}", "exactly one of hub, directory", id="no-source"
        ),
        pytest.param(
            "baseModels: {tiny: {source: {embedded: a, s3: b}}}",
            "found ['s3', 'embedded']",
            id="two-sources",
        ),
        pytest.param(
            "baseModels: {tiny: {source: {embedded: a}, servign: {}}}",
            "tiny.servign",
            id="typo",
        ),
        pytest.param("baseModels: {Tiny: {source: {embedded: a}}}", "Tiny", id="no-dns-label"),
    ],
)
def test_bad_catalogue_names_file_and_field(text: str, part: str) -> None:
    """An administrator is told which file and which field to mend."""
    with pytest.raises(InvalidInput) as caught:
        catalogue.parse(text, origin="catalogue.yaml")

    assert str(caught.value).startswith("catalogue.yaml: ")
    assert part in str(caught.value)
