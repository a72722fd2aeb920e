"""Between messages and what the engine takes and gives. No I/O.

Requests are prepared (token ids, the form that an answer must have) by the thread that reads
messages, so that the step loop need not.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from loraland_engine.grammar import Grammar, GrammarCompiler, GrammarConstraint
from loraland_engine.sequence import Output, SamplingParams
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


def describe(output: Output) -> Message:
    """Return an output as the front reads it."""
    message: Message = {
        "id": output.request_id,
        "index": output.index,
        "text": output.text,
        "token_ids": output.token_ids,
    }
    if output.logprobs:
        message["logprobs"] = [asdict(p) for p in output.logprobs]
    if output.finish_reason is not None:
        message |= {
            "finish": output.finish_reason.value,
            "error": output.error,
            "num_prompt_tokens": output.num_prompt_tokens,
            "num_output_tokens": output.num_output_tokens,
            "num_cached_tokens": output.num_cached_tokens,
            "queue_s": output.timings.queue_s,
            "prefill_s": output.timings.prefill_s,
            "decode_s": output.timings.decode_s,
        }
    return message
