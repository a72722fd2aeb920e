"""Rows to token ids: what the model reads, and the part of it that it learns to write.

Loss is on the completion only. A row that is longer than the limit loses the beginning of its
prompt, because the question usually stands at its end; a completion that alone is too long loses
its own end. Training rows can also be left out, or end the job (``dataset.longRows``). Tokens lie
in a spool on disk and are read when a batch wants them.
"""

import json
import logging
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, overload

import numpy as np
from loraland_core import prompts
from loraland_core.errors import InvalidInput
from loraland_core.prompts import PromptTemplate
from loraland_core.resources.dataset import DatasetSpec
from loraland_models import encoding
from loraland_models.encoding import Tokenizer

from loraland_trainer import lengths
from loraland_trainer.lengths import LengthReport
from loraland_trainer.rows import BadRows, Row, column
from loraland_trainer.spool import Spool

log = logging.getLogger(__name__)
NUM_LONG_ROWS_NAMED = 5
PROGRAM_FIELD = "spec.evaluation.program"


class Problem(NamedTuple):
    """What is wrong with a row, as what follows its number."""

    reason: str
    text: str


@dataclass(frozen=True)
class Example:
    """A prompt and its completion, as token ids; ``reference`` is the completion's text.

    ``program`` runs an answer and its row's tests, where the job has a metric that wants one.
    """

    prompt: list[int]
    completion: list[int]
    reference: str
    program: str = ""

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.completion)


class Examples(Sequence[Example]):
    """Examples on disk; ``lengths`` has the tokens of each, and ``report`` what was cut."""

    report: LengthReport

    def __init__(self) -> None:
        self._spool = Spool()
        self._prompt_lengths = array("I")
        self.lengths = array("I")

    def append(self, example: Example) -> None:
        tokens = np.array([*example.prompt, *example.completion], dtype=np.int32)
        self._prompt_lengths.append(len(example.prompt))
        self.lengths.append(example.num_tokens)
        texts = json.dumps([example.reference, example.program])
        self._spool.append(tokens.tobytes() + texts.encode())

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        record = self._spool.read(index)
        num_tokens, num_prompt = self.lengths[index], self._prompt_lengths[index]
        tokens: list[int] = np.frombuffer(record, dtype=np.int32, count=num_tokens).tolist()
        reference, program = json.loads(record[4 * num_tokens :])
        return Example(tokens[:num_prompt], tokens[num_prompt:], reference, program)

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))


def prompt_template(spec: DatasetSpec) -> PromptTemplate:
    """Return what ``prompt.json`` will say: how a caller's input has to be written."""
    if spec.messages is not None:
        return PromptTemplate(kind="messages")
    return PromptTemplate(kind="fields", template=spec.prompt)


def needed_columns(spec: DatasetSpec, program: str | None = None) -> list[str]:
    """Return the columns that templates name; ``program`` is that of an evaluation that runs one."""
    named = [spec.messages] if spec.messages is not None else _columns(spec)
    if program is not None:
        names = prompts.placeholders(program, field=PROGRAM_FIELD)
        named += [name for name in names if name != "answer"]
    return list(dict.fromkeys(named))


def _columns(spec: DatasetSpec) -> list[str]:
    return [
        *prompts.placeholders(spec.prompt or "", field="spec.dataset.prompt"),
        *prompts.placeholders(spec.completion or "", field="spec.dataset.completion"),
    ]


def find_problem(row: Row, spec: DatasetSpec, columns: Sequence[str] = ()) -> Problem | None:
    """Return what keeps a row from becoming an example, or None."""
    for name in columns or needed_columns(spec):
        if column(row, name) is None:
            present = ", ".join(sorted(row)) or "none"
            text = f"has no column {name!r}, which the templates name; its columns: {present}"
            return Problem("ColumnMissing", text)
    if spec.messages is None:
        return None
    try:
        _check_chat(column(row, spec.messages))
    except InvalidInput as error:
        return Problem(error.reason, f"is no chat to learn from: {error}")
    return None


def check_rows(rows: Sequence[Row], spec: DatasetSpec, *, where: str) -> None:
    """Raise ``InvalidInput`` naming the first rows that cannot become examples."""
    bad = BadRows()
    columns = needed_columns(spec)
    for number, row in enumerate(rows, start=1):
        problem = find_problem(row, spec, columns)
        if problem is not None:
            bad.add(number, problem.text, where=where, reason=problem.reason)
    bad.raise_any()


def build_examples(
    rows: Sequence[Row],
    spec: DatasetSpec,
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    long_rows: str = "Cut",
    program: str | None = None,
    what: str = "rows",
) -> Examples:
    """Return the rows as token ids, none longer than ``max_tokens``; the log says what was cut."""
    built = Examples()
    known = array("I")
    counts = dict.fromkeys(("num_prompts_cut", "num_completions_cut", "num_tokens_cut"), 0)
    too_long: list[str] = []
    num_dropped = 0
    for number, row in enumerate(rows, start=1):
        whole = _build(row, number, spec, tokenizer)
        if not whole.prompt:
            raise _no_prompt(number, what)
        known.append(whole.num_tokens)
        if whole.num_tokens > max_tokens and long_rows != "Cut":
            num_dropped += 1
            too_long += [f"the {number}. has {whole.num_tokens}"][
                : NUM_LONG_ROWS_NAMED - len(too_long)
            ]
            continue
        example = _cut(whole, max_tokens)
        counts["num_prompts_cut"] += len(example.prompt) < len(whole.prompt)
        counts["num_completions_cut"] += len(example.completion) < len(whole.completion)
        counts["num_tokens_cut"] += whole.num_tokens - example.num_tokens
        if program is not None:
            example = replace(example, program=_render_program(program, row))
        built.append(example)
    if too_long and (long_rows == "Fail" or not built):
        raise _too_long(num_dropped, too_long, max_tokens)
    built.report = lengths.measure(
        known, max_tokens=max_tokens, policy=long_rows, num_dropped=num_dropped, **counts
    )
    log.info("%s: %s", what, built.report.sentence())
    return built


def _no_prompt(number: int, what: str) -> InvalidInput:
    return InvalidInput(
        f"the {number}. of the rows {what} has an empty prompt, after which nothing can be predicted;"
        " write some text into the template, or leave such rows out by dataset.filter",
        field="spec.dataset.prompt",
        reason="InvalidRow",
    )


def _too_long(num_rows: int, named: Sequence[str], max_tokens: int) -> InvalidInput:
    return InvalidInput(
        f"{num_rows} training rows have more tokens than training.maxSequenceLength ({max_tokens}):"
        f" {', '.join(named)}; raise it, or set dataset.longRows to Cut",
        field="spec.dataset.longRows",
        reason="RowTooLong",
    )


def _build(row: Row, number: int, spec: DatasetSpec, tokenizer: Tokenizer) -> Example:
    if spec.messages is not None:
        return _build_chat(column(row, spec.messages), number, tokenizer)
    values = {name: column(row, name) for name in _columns(spec)}
    prompt = prompts.render(spec.prompt or "", values, field="spec.dataset.prompt")
    completion = prompts.render(spec.completion or "", values, field="spec.dataset.completion")
    return Example(
        prompt=encoding.encode_prompt(tokenizer, prompt),
        completion=encoding.encode_completion(tokenizer, completion),
        reference=completion,
    )


def _render_program(template: str, row: Row) -> str:
    """Return the row's program, with a mark where an answer comes in."""
    # Imported here: few jobs run programs.
    from loraland_trainer import execution  # noqa: PLC0415

    names = prompts.placeholders(template, field=PROGRAM_FIELD)
    values = {name: _as_lines(column(row, name)) for name in names} | {"answer": execution.ANSWER}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise InvalidInput(
            f"a held-out row has no column {missing[0]!r}, which the program names",
            field=PROGRAM_FIELD,
            reason="ColumnMissing",
        )
    return prompts.render(template, values, field=PROGRAM_FIELD)


def _as_lines(value: Any) -> Any:
    is_lines = isinstance(value, list) and all(isinstance(line, str) for line in value)
    return "\n".join(value) if is_lines else value


def _check_chat(messages: Any, *, field: str = "") -> list[dict[str, str]]:
    checked = encoding.check_messages(messages, field=field)
    if len(checked) < 2 or checked[-1]["role"] != "assistant":
        raise InvalidInput(
            "a chat to learn from ends with an assistant's message after at least one other",
            field=field,
            reason="InvalidMessages",
        )
    return checked


def _build_chat(messages: Any, number: int, tokenizer: Tokenizer) -> Example:
    field = f"row {number}"
    checked = _check_chat(messages, field=field)
    return Example(
        prompt=encoding.encode_messages(tokenizer, checked[:-1], field=field),
        completion=encoding.encode_completion(tokenizer, checked[-1]["content"]),
        reference=checked[-1]["content"],
    )


def _cut(example: Example, max_tokens: int) -> Example:
    completion = example.completion[: max_tokens - 1]
    # One token of the prompt at least: the first token of an answer is predicted from something.
    prompt = example.prompt[-(max_tokens - len(completion)) :]
    return replace(example, prompt=prompt, completion=completion)
