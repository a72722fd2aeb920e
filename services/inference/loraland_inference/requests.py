"""From protobuf requests to the engine's messages: every limit on the input is here. Pure.

Raises ``InvalidInput`` naming the field as the caller wrote it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from loraland_core import prompts
from loraland_core.errors import InvalidInput
from loraland_core.prompts import PromptTemplate
from loraland_core.rpc import inference_pb2

from loraland_inference import messages

MAX_PROMPT_BYTES = 512 * 1024
MAX_MESSAGES = 256
MAX_FIELDS = 64
# Of a field's name; names of columns are shorter.
MAX_FIELD_NAME_LENGTH = 256
MAX_COMPLETIONS = 64
# Of all completions together.
MAX_COMPLETIONS_BYTES = 256 * 1024
MAX_ID_LENGTH = 128
# What a gRPC message may measure; above the sum of the limits on its texts.
MAX_MESSAGE_BYTES = 1024 * 1024

_ADAPTER_ID = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z]([-a-z0-9]{0,48}[a-z0-9])?")


@dataclass(frozen=True)
class ModelLimits:
    context_tokens: int
    vocabulary_size: int


def check_adapter_id(adapter: str) -> str:
    """Return the id; an empty one is the base model."""
    if adapter and not _ADAPTER_ID.fullmatch(adapter):
        raise InvalidInput(f"{adapter[:200]!r} is not of the form namespace/name", field="adapter")
    return adapter


def check_request_id(request_id: str) -> str:
    if len(request_id) > MAX_ID_LENGTH:
        raise InvalidInput(
            f"has {len(request_id)} characters, more than {MAX_ID_LENGTH}", field="request_id"
        )
    return request_id


def check_input(
    given: inference_pb2.Input, limits: ModelLimits
) -> Callable[[PromptTemplate | None], messages.Input]:
    """Check an input, and return how it is rendered once the adapter's template is known."""
    kind = given.WhichOneof("kind")
    match kind:
        case "prompt":
            text = _bounded(given.prompt, "input.prompt")
            return lambda _: {"text": text}
        case "messages":
            chat = _messages(given.messages)
            return lambda _: {"messages": chat}
        case "token_ids":
            token_ids = _token_ids(given.token_ids, limits)
            return lambda _: {"token_ids": token_ids}
        case "fields":
            values = _fields(given.fields)
            return lambda template: {"text": _render(values, template)}
    raise InvalidInput("give one of prompt, messages, token_ids, fields", field="input")


def check_completions(completions: list[str]) -> list[str]:
    if not 1 <= len(completions) <= MAX_COMPLETIONS:
        raise InvalidInput(
            f"has {len(completions)} entries; expected 1 to {MAX_COMPLETIONS}", field="completions"
        )
    for index, text in enumerate(completions):
        if not text:
            raise InvalidInput("is empty", field=f"completions[{index}]")
    num_bytes = sum(len(text.encode()) for text in completions)
    if num_bytes > MAX_COMPLETIONS_BYTES:
        raise InvalidInput(
            f"have {num_bytes} bytes together, more than {MAX_COMPLETIONS_BYTES}; send fewer at once",
            field="completions",
        )
    return completions


def _messages(given: inference_pb2.Messages) -> list[dict[str, str]]:
    if not 1 <= len(given.messages) <= MAX_MESSAGES:
        raise InvalidInput(
            f"has {len(given.messages)} entries; expected 1 to {MAX_MESSAGES}",
            field="input.messages",
        )
    for index, message in enumerate(given.messages):
        if message.role not in ("system", "user", "assistant"):
            raise InvalidInput(
                f"is {message.role[:50]!r}; expected system, user or assistant",
                field=f"input.messages[{index}].role",
            )
    _bounded("".join(m.content for m in given.messages), "input.messages")
    return [{"role": m.role, "content": m.content} for m in given.messages]


def _token_ids(given: inference_pb2.TokenIds, limits: ModelLimits) -> list[int]:
    token_ids = list(given.ids)
    if not 1 <= len(token_ids) < limits.context_tokens:
        raise InvalidInput(
            f"has {len(token_ids)} tokens; the context holds {limits.context_tokens},"
            " and at least one must be left for the answer",
            field="input.token_ids",
        )
    check_vocabulary(token_ids, limits, "input.token_ids")
    return token_ids


def check_vocabulary(token_ids: list[int], limits: ModelLimits, field: str) -> None:
    if token_ids and max(token_ids) >= limits.vocabulary_size:
        raise InvalidInput(
            f"{max(token_ids)} is no token; the vocabulary has {limits.vocabulary_size}",
            field=field,
        )


def _fields(given: inference_pb2.Fields) -> dict[str, str]:
    if not 1 <= len(given.values) <= MAX_FIELDS:
        raise InvalidInput(
            f"has {len(given.values)} entries; expected 1 to {MAX_FIELDS}", field="input.fields"
        )
    for name in given.values:
        if not 1 <= len(name) <= MAX_FIELD_NAME_LENGTH:
            raise InvalidInput(
                f"has a name of {len(name)} characters, {name[:50]!r};"
                f" expected 1 to {MAX_FIELD_NAME_LENGTH}",
                field="input.fields",
            )
    _bounded("".join(given.values.values()), "input.fields")
    return dict(given.values)


def _render(values: dict[str, str], template: PromptTemplate | None) -> str:
    field = "input.fields"
    if template is None:
        raise InvalidInput("the base model has no template; name an adapter", field=field)
    if template.kind != "fields" or template.template is None:
        raise InvalidInput(
            "this adapter was trained on chats; send input.messages instead", field=field
        )
    # A template may name a field many times.
    return _bounded(prompts.render(template.template, values, field=field), field)


def _bounded(text: str, field: str) -> str:
    num_bytes = len(text.encode())
    if not num_bytes:
        raise InvalidInput("is empty", field=field)
    if num_bytes > MAX_PROMPT_BYTES:
        raise InvalidInput(f"has {num_bytes} bytes, more than {MAX_PROMPT_BYTES}", field=field)
    return text
