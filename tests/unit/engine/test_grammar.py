"""Grammars: what each kind allows, what is refused, and that hostile ones stay cheap."""

import json
import time
from functools import cache

import numpy as np
import pytest
import tiny_base
from loraland_core.errors import InvalidInput
from loraland_engine import grammar
from loraland_engine.grammar import Grammar, GrammarCompiler, GrammarConstraint
from tiny_models import ByteTokenizer
from transformers import PreTrainedTokenizerFast

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_base.build_tokenizer()


def build_compiler() -> GrammarCompiler:
    size = len(tokenizer())
    return GrammarCompiler(
        tokenizer(), vocabulary_size=size, eos_token_ids=[tokenizer().eos_token_id]
    )


def is_accepted(constraint: GrammarConstraint, text: str) -> bool:
    """Feed a text and the end; each token must be in the mask that comes before it."""
    for token_id in [*tokenizer().encode(text), tokenizer().eos_token_id]:
        if constraint.is_complete:
            return token_id == tokenizer().eos_token_id
        bits = np.unpackbits(np.frombuffer(constraint.mask(), np.uint8), bitorder="little")
        if not bits[token_id]:
            return False
        constraint.accept(token_id)
        assert constraint.error == ""
    return True


@pytest.mark.parametrize(
    ("kind", "text", "answer", "expected"),
    [
        ("choice", '["yes", "no"]', "yes", True),
        ("choice", '["yes", "no"]', "ye", False),
        ("choice", '["yes", "no"]', "yess", False),
        ("choice", '["a", "ab"]', "ab", True),
        ("choice", '["a\\"b\\n", "日本"]', 'a"b\n', True),
        ("choice", '["a\\"b\\n", "日本"]', "日本", True),
        ("regex", "[0-9]{2,3}", "123", True),
        ("regex", "[0-9]{2,3}", "1", False),
        ("regex", "(é|ü)+x?", "éüx", True),
        ("json_schema", json.dumps(PERSON), '{"name": "Ada", "age": 36}', True),
        ("json_schema", json.dumps(PERSON), '{\n  "name": "Ada",\n  "age": 36\n}', True),
        ("json_schema", json.dumps(PERSON), '{"name": "日本", "age": 36}', True),
        ("json_schema", json.dumps(PERSON), '{"name": "Ada", "age": -1}', False),
        ("json_schema", json.dumps(PERSON), '{"name": "Ada"}', False),
        ("json_schema", json.dumps(PERSON), '{"name": "Ada", "age": 36, "x": 1}', False),
        ("json_schema", json.dumps(PERSON), "{" + " " * 30 + '"name": "Ada", "age": 1}', False),
        ("json_schema", '{"enum": ["a", 2]}', "2", True),
        ("json_schema", '{"multipleOf": 7, "type": "integer"}', "21", True),
    ],
)
def test_constraint_accepts_what_the_grammar_describes(
    kind: grammar.Kind, text: str, answer: str, expected: bool
) -> None:
    """Whole answers, the end included, and nothing else."""
    constraint = build_compiler().compile(Grammar(kind, text))

    assert expected == is_accepted(constraint, answer)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("json_schema", "{", "double quotes"),
        ("json_schema", "[]", "expected a JSON object"),
        ("json_schema", '{"type": "foo"}', "Invalid type"),
        ("json_schema", '{"type": "integer", "minimum": 5, "maximum": 2}', "Unsatisfiable"),
        ("json_schema", '{"not": {"type": "string"}}', "Unimplemented"),
        ("json_schema", '{"$ref": "http://example.com/x"}', "does not fetch"),
        ("json_schema", '{"minimum": NaN}', "NaN"),
        ("json_schema", '{"x-guidance": {"lenient": true}}', "x-guidance"),
        ("json_schema", '{"type": "integer", "multipleOf": 1234567}', "1234567"),
        ("json_schema", '{"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}', "988027"),
        ("json_schema", '{"multipleOf": 1e400}', "too large"),
        ("json_schema", '{"items":' * 5000 + "{}" + "}" * 5000, "deep"),
        ("regex", "[0-9", "unclosed"),
        ("regex", "(?=a)b", "look-around"),
        ("regex", "", "0 bytes"),
        ("regex", "a" * 70_000, "70000 bytes"),
        ("choice", "[]", "1 to 256"),
        ("choice", '[""]', "none of them empty"),
        ("choice", '"yes"', "1 to 256"),
    ],
)
def test_grammar_is_refused_with_its_field(kind: grammar.Kind, text: str, message: str) -> None:
    """The field names the kind, the message what is wrong."""
    with pytest.raises(InvalidInput, match=message) as caught:
        build_compiler().compile(Grammar(kind, text))

    assert caught.value.field == f"sampling.constraint.{kind}"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("regex", "(.{0,2000}a.{0,2000}b){50}"),
        ("regex", "(a|aa)*(b?){200}c{1000}(.*a.{20})"),
        ("json_schema", json.dumps({"enum": [f"{i * 2654435761:x}" for i in range(4000)]})),
        ("json_schema", '{"type": "string", "minLength": 100000}'),
        ("json_schema", json.dumps({"allOf": [{"anyOf": [PERSON] * 6}] * 6})),
    ],
    ids=["states", "ambiguous", "enum", "long", "product"],
)
def test_hostile_grammar_stays_cheap(kind: grammar.Kind, text: str) -> None:
    """It is compiled or refused in well under a second, and so is each step."""
    compiler = build_compiler()
    compiler.compile(Grammar("regex", "warm"))
    started_s = time.process_time()
    try:
        constraint = compiler.compile(Grammar(kind, text))
        for _ in range(50):
            if constraint.is_complete:
                break
            bits = np.unpackbits(np.frombuffer(constraint.mask(), np.uint8), bitorder="little")
            constraint.accept(int(bits.argmax()))
    except InvalidInput:
        pass

    assert time.process_time() - started_s < 2.0


def test_copies_are_independent() -> None:
    """Two completions in one grammar stand at their own places."""
    first = build_compiler().compile(Grammar("choice", '["ab", "cd"]'))
    second = first.copy()

    first.accept(tokenizer().encode("a")[0])

    assert (is_accepted(second, "cd"), is_accepted(first, "b")) == (True, True)


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    """Without the words as bytes no form can be held."""
    compiler = GrammarCompiler(ByteTokenizer(), vocabulary_size=260, eos_token_ids=[257])

    with pytest.raises(InvalidInput) as caught:
        compiler.compile(Grammar("regex", "a"))

    assert caught.value.field == "sampling.constraint"


def test_compiler_forgets_the_grammar_that_was_used_least_lately(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is kept is bounded; a forgotten grammar is compiled again."""
    monkeypatch.setattr(grammar, "MAX_COMPILED", 2)
    compiler = build_compiler()

    for text in ("a", "b", "a", "c"):
        compiler.compile(Grammar("regex", text))

    assert [g.text for g in compiler._compiled] == ["a", "c"]
