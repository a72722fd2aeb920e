"""Answers of a given form: JSON schema, regular expression, or one of some choices. No I/O.

The only caller of llguidance. Compiling takes about a millisecond, for a hostile grammar many, so it
is done by the thread that submits, never in the step loop; what was compiled is kept.
"""

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import llguidance
import llguidance.hf
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from loraland_core.errors import InvalidInput

Kind = Literal["json_schema", "regex", "choice"]

MAX_SOURCE_BYTES = 64 * 1024
MAX_CHOICES = 256
MAX_COMPILED = 128
# Divisibility becomes an automaton with a state for each remainder: 10,000 of them take 40 ms.
MAX_MULTIPLE = 10_000
# Upper bounds of a compilation and of a step's mask, tens of milliseconds each. Verbose errors would
# repeat the schema and the text so far.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=500_000,
    step_lexer_fuel=200_000,
    step_max_items=20_000,
    max_lexer_states=20_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)
# One blank, or a new line and its indentation: without an end, small models like to write blanks for
# ever.
_WHITESPACE = r" |\n {0,12}"


@dataclass(frozen=True)
class Grammar:
    """What an answer must look like; ``text`` is a schema, an expression, or a list as JSON."""

    kind: Kind
    text: str

    @property
    def field(self) -> str:
        return f"sampling.constraint.{self.kind}"


class GrammarConstraint:
    """One completion's place in a grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def error(self) -> str:
        return self._matcher.get_error().replace("<non-verbose/>", "").strip()[:500]

    @property
    def is_complete(self) -> bool:
        return self._matcher.is_stopped()

    def copy(self) -> "GrammarConstraint":
        return GrammarConstraint(self._matcher.deep_copy())

    def mask(self) -> bytes:
        return self._matcher.compute_bitmask()

    def accept(self, token_id: int) -> None:
        self._matcher.consume_token(token_id)


class GrammarCompiler:
    """Grammars over one tokenizer; safe to call from any thread."""

    def __init__(
        self, tokenizer: Any, *, vocabulary_size: int, eos_token_ids: Iterable[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size
        self._eos_token_ids = sorted(eos_token_ids)
        self._compiled: OrderedDict[Grammar, GrammarConstraint] = OrderedDict()
        self._lock = threading.Lock()
        self._words: LLTokenizer | None = None

    def compile(self, grammar: Grammar) -> GrammarConstraint:
        """Return a constraint at its beginning; raise ``InvalidInput`` for what is no grammar."""
        with self._lock:
            if grammar not in self._compiled:
                self._compiled[grammar] = self._compile(grammar)
                if len(self._compiled) > MAX_COMPILED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar)
            return self._compiled[grammar].copy()

    def _compile(self, grammar: Grammar) -> GrammarConstraint:
        source = _source(grammar)
        matcher = LLMatcher(self._load_words(), source, log_level=0, limits=_LIMITS)
        constraint = GrammarConstraint(matcher)
        if not constraint.error:
            # The first mask is the dearest; it warms what the copies share.
            constraint.mask()
        if constraint.error:
            raise _invalid(grammar, constraint.error)
        return constraint

    def _load_words(self) -> LLTokenizer:
        """Read the tokenizer's words, once: it takes half a second, so only if somebody asks."""
        if self._words is None:
            if not getattr(self._tokenizer, "is_fast", False):
                raise InvalidInput(
                    "the base model's tokenizer is of a kind that cannot hold answers to a form",
                    field="sampling.constraint",
                )
            self._words = llguidance.hf.from_tokenizer(
                self._tokenizer,
                n_vocab=max(self._vocabulary_size, len(self._tokenizer)),
                eos_token=self._eos_token_ids,
            )
        return self._words


def _source(grammar: Grammar) -> str:
    """Return the grammar in the library's language."""
    num_bytes = len(grammar.text.encode())
    if not 1 <= num_bytes <= MAX_SOURCE_BYTES:
        raise _invalid(grammar, f"has {num_bytes} bytes; expected 1 to {MAX_SOURCE_BYTES}")
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.text)
    try:
        document = json.loads(grammar.text, parse_constant=_refuse_constant)
        if grammar.kind == "choice":
            return LLMatcher.grammar_from_lark(_alternatives(document))
        _check_schema(document)
    except RecursionError as error:
        raise _invalid(grammar, "is nested too deeply") from error
    except ValueError as error:
        raise _invalid(grammar, str(error)) from error
    return LLMatcher.grammar_from_json_schema(
        json.dumps(document), overrides={"whitespace_pattern": _WHITESPACE}
    )


def _alternatives(choices: Any) -> str:
    is_list = isinstance(choices, list) and all(isinstance(c, str) and c for c in choices)
    if not is_list or not 1 <= len(choices) <= MAX_CHOICES:
        raise ValueError(f"expected 1 to {MAX_CHOICES} texts, none of them empty")
    return "start: " + " | ".join(json.dumps(c, ensure_ascii=False) for c in choices)


def _check_schema(document: Any) -> None:
    """Refuse what would take long, or would change how the schema is read."""
    if not isinstance(document, dict | bool):
        raise ValueError("expected a JSON object")
    multiple = 1
    for key, value in _entries(document):
        if key == "x-guidance":
            raise ValueError("x-guidance is not supported")
        if key == "multipleOf" and isinstance(value, int | float) and value > 0:
            multiple = math.lcm(multiple, _numerator(value))
    if multiple > MAX_MULTIPLE:
        raise ValueError(
            f"its multipleOf together repeat after {multiple}, more than {MAX_MULTIPLE}"
        )


def _numerator(value: float) -> int:
    if math.isinf(value):
        raise ValueError("its multipleOf is too large")
    return Fraction(str(value)).numerator


def _entries(document: Any) -> Iterable[tuple[str, Any]]:
    """Yield every key of every object with its value."""
    if isinstance(document, dict):
        yield from document.items()
        for value in document.values():
            yield from _entries(value)
    elif isinstance(document, list):
        for value in document:
            yield from _entries(value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _invalid(grammar: Grammar, message: str) -> InvalidInput:
    return InvalidInput(message, field=grammar.field, reason="InvalidGrammar")
