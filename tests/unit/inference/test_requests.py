"""Limits on what a caller sizes: each is refused with the field as the caller wrote it."""

from collections.abc import Callable
from typing import Any

import pytest
from loraland_core.errors import InvalidInput
from loraland_core.prompts import PromptTemplate
from loraland_core.rpc import inference_pb2 as pb
from loraland_inference import requests
from loraland_inference.requests import ModelLimits

LIMITS = ModelLimits(context_tokens=64, vocabulary_size=100)
FIELDS = PromptTemplate(kind="fields", template="{a}, {b}!")


def input_of(**kind: Any) -> pb.Input:
    return pb.Input(**kind)


def messages_of(*pairs: tuple[str, str]) -> pb.Input:
    return pb.Input(
        messages=pb.Messages(messages=[pb.Message(role=r, content=c) for r, c in pairs])
    )


def render(given: pb.Input, template: PromptTemplate | None = None) -> Any:
    return requests.check_input(given, LIMITS)(template)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (input_of(prompt="hi"), {"text": "hi"}),
        (messages_of(("user", "hi")), {"messages": [{"role": "user", "content": "hi"}]}),
        (input_of(token_ids=pb.TokenIds(ids=[1, 2])), {"token_ids": [1, 2]}),
        (input_of(fields=pb.Fields(values={"a": "x", "b": "y"})), {"text": "x, y!"}),
    ],
    ids=["prompt", "messages", "token-ids", "fields"],
)
def test_input_is_rendered_by_its_kind(given: pb.Input, expected: Any) -> None:
    """Each of the four forms becomes what the engine process tokenizes."""
    assert render(given, FIELDS) == expected


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (pb.Input(), "input"),
        (input_of(prompt=""), "input.prompt"),
        (input_of(prompt="x" * (requests.MAX_PROMPT_BYTES + 1)), "input.prompt"),
        (messages_of(), "input.messages"),
        (messages_of(("robot", "hi")), "input.messages[0].role"),
        (messages_of(*[("user", "hi")] * 257), "input.messages"),
        (input_of(token_ids=pb.TokenIds(ids=[])), "input.token_ids"),
        (input_of(token_ids=pb.TokenIds(ids=[100])), "input.token_ids"),
        (input_of(token_ids=pb.TokenIds(ids=[1] * 64)), "input.token_ids"),
        (input_of(fields=pb.Fields(values={"a": "x"})), "input.fields"),
        (input_of(fields=pb.Fields(values={str(i): "x" for i in range(65)})), "input.fields"),
        (input_of(fields=pb.Fields(values={"a": "x", "b" * 257: "y"})), "input.fields"),
        (input_of(fields=pb.Fields(values={"a": "x", "b": "y", "": "z"})), "input.fields"),
    ],
    ids=[
        "none", "empty-prompt", "long-prompt", "no-messages", "role", "many-messages", "no-ids",
        "unknown-id", "many-ids", "field-missing", "many-fields", "long-name", "no-name",
    ],
)  # fmt: skip
def test_input_is_refused_with_its_field(given: pb.Input, field: str) -> None:
    """The field names what to fix."""
    with pytest.raises(InvalidInput) as caught:
        render(given, FIELDS)

    assert caught.value.field == field


@pytest.mark.parametrize(
    "template", [None, PromptTemplate(kind="messages")], ids=["base-model", "chat-adapter"]
)
def test_fields_are_refused_when_there_is_no_template(template: PromptTemplate | None) -> None:
    """The base model has no template, and an adapter trained on chats has none for fields."""
    with pytest.raises(InvalidInput) as caught:
        render(input_of(fields=pb.Fields(values={"a": "x", "b": "y"})), template)

    assert caught.value.field == "input.fields"


@pytest.mark.parametrize(
    ("check", "field"),
    [
        (lambda: requests.check_adapter_id("no-namespace"), "adapter"),
        (lambda: requests.check_adapter_id("a/../../etc"), "adapter"),
        (lambda: requests.check_adapter_id("a/b\n"), "adapter"),
        (lambda: requests.check_request_id("x" * 129), "request_id"),
        (lambda: requests.check_completions([]), "completions"),
        (lambda: requests.check_completions(["a", ""]), "completions[1]"),
        (lambda: requests.check_completions(["a" * 5000] * 64), "completions"),
    ],
    ids=[
        "adapter",
        "adapter-path",
        "adapter-line",
        "request-id",
        "no-completions",
        "empty-completion",
        "long-completions",
    ],
)
def test_identifiers_are_refused_with_their_field(check: Callable[[], Any], field: str) -> None:
    """Names are checked before anything is looked up by them."""
    with pytest.raises(InvalidInput) as caught:
        check()

    assert caught.value.field == field


def test_largest_scoring_fits_a_message() -> None:
    """What the limits on its parts allow, gRPC does not refuse for its size."""
    size = requests.MAX_COMPLETIONS_BYTES // requests.MAX_COMPLETIONS
    given = pb.ScoreRequest(
        input=pb.Input(prompt="x" * requests.MAX_PROMPT_BYTES),
        completions=["y" * size] * requests.MAX_COMPLETIONS,
        request_id="z" * requests.MAX_ID_LENGTH,
    )
    requests.check_input(given.input, LIMITS)
    requests.check_completions(list(given.completions))

    assert given.ByteSize() < requests.MAX_MESSAGE_BYTES
