"""From a message to what the engine takes: token ids, and the form that an answer must have. No I/O.

Done by the thread that reads messages, so that the step loop need not.
"""

from dataclasses import dataclass, field
from typing import Any

from loraland_engine.grammar import Grammar, GrammarCompiler, GrammarConstraint
from loraland_engine.sequence import SamplingParams
from loraland_models import encoding

from loraland_inference import messages
from loraland_inference.messages import Message


@dataclass(frozen=True)
class Prepared:
    """A request as the engine takes it."""

    token_ids: list[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    constraint: GrammarConstraint | None = None
    # For scoring.
    completions: list[list[int]] = field(default_factory=list)


class Preparer:
    """Prepares requests over one tokenizer; raises ``InvalidInput`` naming the caller's field."""

    def __init__(self, tokenizer: Any, grammars: GrammarCompiler) -> None:
        self._tokenizer = tokenizer
        self._grammars = grammars

    def generation(self, message: Message) -> Prepared:
        grammar = message.get("grammar")
        return Prepared(
            self.tokens(message["input"]),
            build_params(message["params"]),
            self._grammars.compile(Grammar(**grammar)) if grammar else None,
        )

    def scoring(self, message: Message) -> Prepared:
        completions = [
            self._tokenizer.encode(text, add_special_tokens=False)
            for text in message["completions"]
        ]
        return Prepared(self.tokens(message["input"]), completions=completions)

    def tokens(self, given: messages.Input) -> list[int]:
        """Return the tokens of whichever form the input has."""
        if "token_ids" in given:
            return given["token_ids"]
        if "messages" in given:
            chat = given["messages"]
            return encoding.encode_messages(self._tokenizer, chat, field="input.messages")
        return encoding.encode_prompt(self._tokenizer, given["text"])


def build_params(options: Message) -> SamplingParams:
    """Return the parameters; JSON has neither tuples nor sets."""
    changed = {
        "stop": tuple(options["stop"]),
        "stop_token_ids": frozenset(options["stop_token_ids"]),
        "logit_bias": tuple((token_id, value) for token_id, value in options["logit_bias"]),
    }
    return SamplingParams(**options | changed)
