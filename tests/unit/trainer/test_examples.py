"""Rows become token ids: the prompt as it will be asked, the completion that is learned."""

from typing import Any

import pytest
import tiny_base
from loraland_core.errors import InvalidInput
from loraland_core.resources.dataset import DatasetSpec
from loraland_trainer import examples
from loraland_trainer.examples import Example

TOKENIZER: Any = tiny_base.build_tokenizer()
FIELDS = DatasetSpec(prompt="Q: {q}\n", completion="{a}")
CHAT = DatasetSpec(messages="chat")
TURN = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


def build(rows: list[dict[str, Any]], spec: DatasetSpec, max_tokens: int = 100) -> list[Example]:
    return examples.build_examples(rows, spec, TOKENIZER, max_tokens=max_tokens)


def test_templates_make_prompt_and_completion() -> None:
    """The completion ends with the end token, the prompt does not."""
    [example] = build([{"q": "up?", "a": "no"}], FIELDS)

    assert TOKENIZER.encode("Q: up?\n") == example.prompt
    assert [*TOKENIZER.encode("no"), TOKENIZER.eos_token_id] == example.completion
    assert example.reference == "no"


def test_a_chat_is_learned_from_its_last_message() -> None:
    """All before the assistant's last message is prompt, in the model's own template."""
    [example] = build([{"chat": TURN}], CHAT)

    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert TOKENIZER.encode(text) == example.prompt
    assert example.reference == "Yo"


@pytest.mark.parametrize(
    ("max_tokens", "prompt", "completion"),
    [
        pytest.param(7, "67", "abcd", id="prompt-loses-its-beginning"),
        pytest.param(4, "7", "abc", id="completion-loses-its-end"),
    ],
)
def test_long_rows_are_cut(max_tokens: int, prompt: str, completion: str) -> None:
    """No row is longer than the limit, and the end of the question stays."""
    spec = DatasetSpec(prompt="{q}", completion="{a}")

    [example] = build([{"q": "1234567", "a": "abcd"}], spec, max_tokens)

    assert example.num_tokens <= max_tokens
    assert prompt == TOKENIZER.decode(example.prompt)
    assert completion == TOKENIZER.decode(example.completion, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("row", "spec", "part"),
    [
        pytest.param({"q": "x"}, FIELDS, "has no column 'a', which the templates", id="column"),
        pytest.param({"text": "x"}, CHAT, "has no column 'chat'", id="messages-column"),
    ],
)
def test_columns_are_checked_before_anything_is_loaded(
    row: dict[str, Any], spec: DatasetSpec, part: str
) -> None:
    """A template that names an absent column is found at once."""
    with pytest.raises(InvalidInput) as caught:
        examples.check_rows([row], spec, where="training rows")

    assert caught.value.reason == "ColumnMissing"
    assert part in str(caught.value)


def test_a_chat_without_an_answer_is_refused() -> None:
    """There is nothing to learn from a question alone; the row is named."""
    with pytest.raises(InvalidInput, match="row 2: a chat to learn from ends with an assistant"):
        build([{"chat": TURN}, {"chat": TURN[:1]}], CHAT)


def test_prompt_file_says_how_to_ask() -> None:
    """What serving renders is what training rendered."""
    assert examples.prompt_template(FIELDS).template == "Q: {q}\n"
    assert examples.prompt_template(CHAT).kind == "messages"
