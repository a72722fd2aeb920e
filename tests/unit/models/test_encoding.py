"""Prompts, completions and chats become the same tokens wherever they are made."""

from typing import Any

import pytest
import tiny_base
from loraland_core.errors import InvalidInput
from loraland_models import encoding

TOKENIZER: Any = tiny_base.build_tokenizer()
MESSAGES = [{"role": "user", "content": "Hi", "name": "ignored"}]


def test_completion_ends_with_the_end_token() -> None:
    """A model learns where to stop from the last token."""
    token_ids = encoding.encode_completion(TOKENIZER, "ab")

    assert [*TOKENIZER.encode("ab"), TOKENIZER.eos_token_id] == token_ids


def test_messages_end_where_the_assistant_begins() -> None:
    """The model's own template writes the chat; only role and content reach it."""
    text = encoding.render_messages(TOKENIZER, MESSAGES)

    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_special_tokens_of_a_chat_are_single_tokens() -> None:
    """What the template writes as text is read as the special token."""
    token_ids = encoding.encode_messages(TOKENIZER, MESSAGES)

    assert token_ids[0] == TOKENIZER.bos_token_id
    assert token_ids.count(TOKENIZER.eos_token_id) == 1


def test_a_template_cannot_leave_its_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chat template that reaches for Python's insides is refused, not run."""
    escape = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    monkeypatch.setattr(TOKENIZER, "chat_template", escape)

    with pytest.raises(InvalidInput, match="refuses the messages"):
        encoding.render_messages(TOKENIZER, MESSAGES)


@pytest.mark.parametrize(
    ("messages", "part"),
    [
        pytest.param("Hi", "messages: expected a list", id="text"),
        pytest.param([], "messages: expected a list", id="empty"),
        pytest.param([{"role": "user"}], "messages[0]: expected an object", id="no-content"),
        pytest.param(
            [*MESSAGES, {"role": "user", "content": 3}], "messages[1]: expected", id="number"
        ),
    ],
)
def test_messages_are_checked(messages: Any, part: str) -> None:
    """The error names the message that is wrong."""
    with pytest.raises(InvalidInput) as caught:
        encoding.render_messages(TOKENIZER, messages)

    assert part in str(caught.value)


def test_a_model_without_a_chat_template_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to use instead."""
    monkeypatch.setattr(TOKENIZER, "chat_template", None)

    with pytest.raises(InvalidInput, match="use prompt and completion templates"):
        encoding.render_messages(TOKENIZER, MESSAGES)
