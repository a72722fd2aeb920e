"""Templates replace named columns and execute nothing."""

import pytest
from loraland_core import prompts
from loraland_core.errors import InvalidInput


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        pytest.param("Q: {q}\nA:", {"q": "why?"}, "Q: why?\nA:", id="one-column"),
        pytest.param("{a}{b}{a}", {"a": "x", "b": "y"}, "xyx", id="repeated"),
        pytest.param('{{"k": {n}}}', {"n": 3}, '{"k": 3}', id="literal-braces-and-a-number"),
        pytest.param("{a b}", {"a b": "c"}, "c", id="name-with-a-space"),
        pytest.param("{q}", {"q": "{other}"}, "{other}", id="a-value-is-not-a-template"),
        pytest.param("{tags}", {"tags": ["é", 1]}, '["é", 1]', id="a-list-as-json"),
        pytest.param("no columns", {}, "no columns", id="plain"),
    ],
)
def test_render_replaces_columns(template: str, values: dict[str, object], expected: str) -> None:
    """A template is text with its columns' values put in."""
    rendered = prompts.render(template, values)

    assert expected == rendered


@pytest.mark.parametrize(
    ("template", "part"),
    [
        pytest.param("{q", "single '{' at character 0", id="open"),
        pytest.param("q}", "single '}' at character 1", id="closed"),
        pytest.param("{}", "not a column name", id="empty"),
        pytest.param("{q.__class__}", "present", id="attribute-is-only-a-name"),
        pytest.param("{q[0]}", "not a column name", id="index"),
        pytest.param("{q!r}", "not a column name", id="conversion"),
        pytest.param("{q:>9999999}", "not a column name", id="format-spec"),
        pytest.param("{other}", "names other, which is not there; present: q", id="missing"),
    ],
)
def test_render_refuses_anything_but_columns(template: str, part: str) -> None:
    """Whatever is no plain column of the row is an error that says where and why."""
    with pytest.raises(InvalidInput) as caught:
        prompts.render(template, {"q": "x"}, field="dataset.prompt")

    assert str(caught.value).startswith("dataset.prompt: ")
    assert part in str(caught.value)


def test_prompt_file_survives_a_round_trip() -> None:
    """What the trainer writes is what the server reads."""
    prompt = prompts.PromptTemplate(kind="fields", template="Q: {q}\nÄ:")

    again = prompts.parse_prompt(prompt.to_json())

    assert prompt == again


def test_prompt_file_of_a_newer_release_is_refused() -> None:
    """A reader says that it is too old instead of guessing."""
    with pytest.raises(InvalidInput, match="newer than 1"):
        prompts.parse_prompt(b'{"schemaVersion": 2, "kind": "fields", "template": "x"}')
