"""Rows become token ids: the prompt as it will be asked, the completion that is learned."""

from typing import Any

import pytest
import tiny_base
from loraland_core.errors import InvalidInput
from loraland_core.resources.dataset import DatasetSpec
from loraland_trainer import examples
from loraland_trainer.examples import Examples

TOKENIZER: Any = tiny_base.build_tokenizer()
FIELDS = DatasetSpec(prompt="Q: {q}\n", completion="{a}")
CHAT = DatasetSpec(messages="chat")
TURN = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


def build(rows: list[dict[str, Any]], spec: DatasetSpec, max_tokens: int = 100) -> Examples:
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

    with pytest.raises(InvalidInput, match="rows: row 2 is no chat to learn from: a chat to learn"):
        examples.check_rows([{"chat": TURN}, {"chat": TURN[:1]}], CHAT, where="rows")


def test_prompt_file_says_how_to_ask() -> None:
    """What serving renders is what training rendered."""
    assert examples.prompt_template(FIELDS).template == "Q: {q}\n"
    assert examples.prompt_template(CHAT).kind == "messages"


LETTERS = DatasetSpec(prompt="{q}", completion="{a}")
SHORT_AND_LONG = [{"q": "12", "a": "a"}, {"q": "1234567", "a": "abcd"}, {"q": "1", "a": "abcdefgh"}]


def test_the_report_says_what_was_cut() -> None:
    """Lengths as they were, and how many tokens of prompts and completions are gone."""
    built = build(SHORT_AND_LONG, LETTERS, max_tokens=7)

    report = built.report
    assert list(built.lengths) == [4, 7, 7]
    assert (report.num_rows, report.shortest, report.median, report.longest) == (3, 4, 10, 12)
    assert (report.num_prompts_cut, report.num_completions_cut, report.num_tokens_cut) == (1, 1, 8)
    assert report.sentence() == (
        "3 rows of 4 to 12 tokens (median 10, 95 % up to 12); over 7 tokens, 1 prompts lost their"
        " beginning and 1 completions their end, 8 tokens in all"
    )


def test_long_rows_can_be_left_out() -> None:
    """The others stay whole, and the report counts."""
    built = examples.build_examples(
        SHORT_AND_LONG, LETTERS, TOKENIZER, max_tokens=7, long_rows="Drop"
    )

    assert [example.reference for example in built] == ["a"]
    assert built.report.sentence().endswith("2 over 7 tokens left out")


@pytest.mark.parametrize(
    ("long_rows", "max_tokens"),
    [pytest.param("Fail", 7, id="fail"), pytest.param("Drop", 3, id="nothing-left")],
)
def test_long_rows_can_end_the_job(long_rows: str, max_tokens: int) -> None:
    """The first ones are named with their lengths."""
    with pytest.raises(InvalidInput) as caught:
        examples.build_examples(
            SHORT_AND_LONG, LETTERS, TOKENIZER, max_tokens=max_tokens, long_rows=long_rows
        )

    assert caught.value.reason == "RowTooLong"
    assert "the 2. has 12" in str(caught.value)


def test_examples_lie_on_disk_and_come_back() -> None:
    """Any of them, whatever the text."""
    rows = [{"q": "é", "a": "\u2028"}, {"q": "x", "a": ""}]

    built = build(rows, LETTERS)

    assert [example.reference for example in built] == ["\u2028", ""]
    assert built[-1].completion == [TOKENIZER.eos_token_id]
    assert built[0:1] == [built[0]]
    with pytest.raises(IndexError):
        built[2]


def test_an_empty_prompt_is_refused() -> None:
    """End to end, its answer would be predicted from another row's end."""
    spec = DatasetSpec(prompt="{q}", completion="{a}")

    with pytest.raises(InvalidInput, match="has an empty prompt") as caught:
        build([{"q": "up?", "a": "no"}, {"q": "", "a": "no"}], spec)

    assert caught.value.field == "spec.dataset.prompt"
