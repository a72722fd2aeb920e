"""Rows to token ids: what the model reads, and the part of it that it learns to write. Pure.

Loss is on the completion only. A row that is longer than the limit loses the beginning of its
prompt, because the question usually stands at its end; a completion that alone is too long loses
its own end.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loraland_core import prompts
from loraland_core.errors import InvalidInput
from loraland_core.prompts import PromptTemplate
from loraland_core.resources.dataset import DatasetSpec
from loraland_models import encoding
from loraland_models.encoding import Tokenizer

from loraland_trainer import dataset
from loraland_trainer.dataset import Row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A prompt and its completion, as token ids; ``reference`` is the completion's text."""

    prompt: list[int]
    completion: list[int]
    reference: str

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.completion)


def prompt_template(spec: DatasetSpec) -> PromptTemplate:
    """Return what ``prompt.json`` will say: how a caller's input has to be written."""
    if spec.messages is not None:
        return PromptTemplate(kind="messages")
    return PromptTemplate(kind="fields", template=spec.prompt)


def check_rows(rows: Sequence[Row], spec: DatasetSpec, *, where: str) -> None:
    """Raise ``InvalidInput`` where a row lacks what the templates name."""
    needed = [spec.messages] if spec.messages is not None else _columns(spec)
    dataset.check_columns(rows, needed, where=where)


def _columns(spec: DatasetSpec) -> list[str]:
    return [
        *prompts.placeholders(spec.prompt or "", field="spec.dataset.prompt"),
        *prompts.placeholders(spec.completion or "", field="spec.dataset.completion"),
    ]


def build_examples(
    rows: Sequence[Row], spec: DatasetSpec, tokenizer: Tokenizer, *, max_tokens: int
) -> list[Example]:
    """Return the rows as token ids, none longer than ``max_tokens``; the log says what was cut."""
    examples = [_build(row, number, spec, tokenizer) for number, row in enumerate(rows, start=1)]
    cut = [_cut(example, max_tokens) for example in examples]
    num_cut = sum(1 for a, b in zip(examples, cut, strict=True) if a.num_tokens > b.num_tokens)
    lengths = sorted(example.num_tokens for example in examples)
    log.info(
        "%d rows of %d to %d tokens (median %d); %d cut to %d",
        len(rows),
        lengths[0],
        lengths[-1],
        lengths[len(lengths) // 2],
        num_cut,
        max_tokens,
    )
    return cut


def _build(row: Row, number: int, spec: DatasetSpec, tokenizer: Tokenizer) -> Example:
    if spec.messages is not None:
        return _build_chat(dataset.column(row, spec.messages), number, tokenizer)
    values = {name: dataset.column(row, name) for name in _columns(spec)}
    prompt = prompts.render(spec.prompt or "", values, field="spec.dataset.prompt")
    completion = prompts.render(spec.completion or "", values, field="spec.dataset.completion")
    return Example(
        prompt=encoding.encode_prompt(tokenizer, prompt),
        completion=encoding.encode_completion(tokenizer, completion),
        reference=completion,
    )


def _build_chat(messages: Any, number: int, tokenizer: Tokenizer) -> Example:
    field = f"row {number}"
    checked = encoding.check_messages(messages, field=field)
    if len(checked) < 2 or checked[-1]["role"] != "assistant":
        raise InvalidInput(
            "a chat to learn from ends with an assistant's message after at least one other",
            field=field,
            reason="InvalidMessages",
        )
    return Example(
        prompt=encoding.encode_messages(tokenizer, checked[:-1], field=field),
        completion=encoding.encode_completion(tokenizer, checked[-1]["content"]),
        reference=checked[-1]["content"],
    )


def _cut(example: Example, max_tokens: int) -> Example:
    completion = example.completion[: max_tokens - 1]
    # One token of the prompt at least: the first token of an answer is predicted from something.
    prompt = example.prompt[-(max_tokens - len(completion)) :]
    return Example(prompt=prompt, completion=completion, reference=example.reference)
