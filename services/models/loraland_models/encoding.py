"""Text and chat messages to token ids, the same in training, evaluation and serving. No torch.

A prompt is tokenized with the special tokens that the tokenizer itself would add; a completion with
none but the end token. Chat messages go through the model's own template, in the sandbox that
Transformers runs it in.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from loraland_core.errors import InvalidInput


class Tokenizer(Protocol):
    """The part of a Transformers tokenizer that is used here."""

    chat_template: Any
    eos_token_id: Any

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Any: ...

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a rendered prompt."""
    return cast("list[int]", tokenizer.encode(text, add_special_tokens=True))


def encode_completion(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of what the model shall answer, the end token last."""
    return [*tokenizer.encode(text, add_special_tokens=False), int(tokenizer.eos_token_id)]


def render_messages(tokenizer: Tokenizer, messages: Any, *, field: str = "messages") -> str:
    """Return the chat as text, ending where the assistant begins to speak."""
    checked = check_messages(messages, field=field)
    if not tokenizer.chat_template:
        raise InvalidInput(
            "the base model has no chat template; use prompt and completion templates",
            field=field,
            reason="ChatTemplateMissing",
        )
    try:
        text = tokenizer.apply_chat_template(checked, tokenize=False, add_generation_prompt=True)
    # A template may raise anything: it is a program, in a sandbox.
    except Exception as error:
        raise InvalidInput(
            f"the base model's chat template refuses the messages: {error}",
            field=field,
            reason="InvalidMessages",
        ) from error
    return cast("str", text)


def encode_messages(tokenizer: Tokenizer, messages: Any, *, field: str = "messages") -> list[int]:
    """Return the tokens of a chat; the template has written the special tokens already."""
    text = render_messages(tokenizer, messages, field=field)
    return cast("list[int]", tokenizer.encode(text, add_special_tokens=False))


def check_messages(messages: Any, *, field: str) -> list[dict[str, str]]:
    """Return the messages with ``role`` and ``content`` only; raise ``InvalidInput`` naming one."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InvalidInput("expected a list of messages", field=field, reason="InvalidMessages")
    checked = []
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(role, str) or not isinstance(content, str):
            raise InvalidInput(
                "expected an object with a text role and a text content",
                field=f"{field}[{index}]",
                reason="InvalidMessages",
            )
        checked.append({"role": role, "content": content})
    return checked
