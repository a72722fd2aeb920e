"""Between Python values and protobuf messages, both ways. No I/O."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from loraland_core.rpc import inference_pb2


class Constraints(TypedDict, total=False):
    """The form that the answer must have; at most one."""

    json_schema: Mapping[str, Any] | str | None
    regex: str | None
    choice: Sequence[str] | None


class Options(TypedDict, total=False):
    """Sampling parameters; all may be left out. docs/requests.md explains each."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int | None
    logprobs: int
    n: int
    stop: Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool


class Inputs(TypedDict, total=False):
    """What to answer; exactly one."""

    prompt: str | None
    fields: Mapping[str, str] | None
    messages: Sequence[Mapping[str, str]] | None
    token_ids: Sequence[int] | None


class Request(Inputs, Options, Constraints, total=False):
    adapter: str
    request_id: str


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its natural-logarithmic probability, and the likeliest ones in its place."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Completion:
    """A whole reply, or a piece of one.

    A piece that ends its completion has a ``finish_reason`` (stop or length); the last piece of all
    has the usage and what follows it. ``completions`` has all of them where ``n`` was above 1.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str = ""
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    completions: tuple["Completion", ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    digest: str = ""
    request_id: str = ""
    queue_s: float = 0.0
    adapter_load_s: float = 0.0
    # Where the adapter was when the request came: slot, host, disk or absent; empty: the base model.
    adapter_tier: str = ""
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class Score:
    """How likely a completion is after its input; ``logprob`` is the sum over ``tokens``."""

    logprob: float
    tokens: tuple[TokenLogprob, ...]


def build_input(inputs: Inputs) -> inference_pb2.Input:
    """Return the request's input; ``TypeError`` for none or more than one."""
    given = {name: value for name, value in inputs.items() if value is not None}
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise TypeError(f"give one of prompt, fields, messages, token_ids; found {found}")
    if (prompt := inputs.get("prompt")) is not None:
        return inference_pb2.Input(prompt=prompt)
    if (fields := inputs.get("fields")) is not None:
        return inference_pb2.Input(fields=inference_pb2.Fields(values=dict(fields)))
    if (messages := inputs.get("messages")) is not None:
        chat = [inference_pb2.Message(role=m["role"], content=m["content"]) for m in messages]
        return inference_pb2.Input(messages=inference_pb2.Messages(messages=chat))
    return inference_pb2.Input(token_ids=inference_pb2.TokenIds(ids=inputs["token_ids"] or ()))


def build_request(request: Request) -> inference_pb2.GenerateRequest:
    names = Options.__optional_keys__
    options = {name: value for name, value in request.items() if name in names}
    inputs = {name: value for name, value in request.items() if name in Inputs.__optional_keys__}
    return inference_pb2.GenerateRequest(
        adapter=request.get("adapter", ""),
        input=build_input(cast("Inputs", inputs)),
        request_id=request.get("request_id", ""),
        sampling=inference_pb2.SamplingParams(
            **cast("Any", options), constraint=build_constraint(request)
        ),
    )


def build_constraint(request: Constraints) -> inference_pb2.Constraint | None:
    """Return the form that was asked for, if any; ``TypeError`` for more than one."""
    names = Constraints.__optional_keys__
    given = [n for n in sorted(names) if cast("Any", request).get(n) is not None]
    if len(given) > 1:
        raise TypeError(f"give at most one of json_schema, regex, choice; found {given}")
    if (schema := request.get("json_schema")) is not None:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        return inference_pb2.Constraint(json_schema=text)
    if (regex := request.get("regex")) is not None:
        return inference_pb2.Constraint(regex=regex)
    if (choice := request.get("choice")) is not None:
        return inference_pb2.Constraint(choice=inference_pb2.Choice(options=choice))
    return None


def read_completion(
    response: inference_pb2.GenerateResponse | inference_pb2.GenerateStreamResponse,
) -> Completion:
    """Return a whole reply, or a stream's piece."""
    index = 0
    completions: tuple[Completion, ...] = ()
    if isinstance(response, inference_pb2.GenerateResponse):
        completions = _read_all(response.completions)
    else:
        index = response.index
    return Completion(
        text=response.text,
        token_ids=tuple(response.token_ids),
        finish_reason=_finish_reason(response.finish_reason),
        index=index,
        logprobs=_read_logprobs(response.logprobs),
        completions=completions,
        prompt_tokens=response.usage.prompt_tokens,
        completion_tokens=response.usage.completion_tokens,
        cached_prompt_tokens=response.usage.cached_prompt_tokens,
        digest=response.digest,
        request_id=response.request_id,
        queue_s=response.timings.queue_s,
        adapter_load_s=response.timings.adapter_load_s,
        adapter_tier=_tier(response.timings.adapter_tier),
        prefill_s=response.timings.prefill_s,
        decode_s=response.timings.decode_s,
    )


def _tier(tier: inference_pb2.Tier.ValueType) -> str:
    name = inference_pb2.Tier.Name(tier).removeprefix("TIER_").lower()
    return "" if name == "unspecified" else name


def read_score(score: inference_pb2.CompletionScore) -> Score:
    return Score(score.logprob, _read_logprobs(score.tokens))


def _read_all(given: Sequence[inference_pb2.Completion]) -> tuple[Completion, ...]:
    return tuple(
        Completion(
            c.text,
            tuple(c.token_ids),
            _finish_reason(c.finish_reason),
            c.index,
            _read_logprobs(c.logprobs),
        )
        for c in given
    )


def _read_logprobs(given: Sequence[inference_pb2.TokenLogprob]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(p.token_id, p.logprob, tuple((t.token_id, t.logprob) for t in p.top))
        for p in given
    )


def _finish_reason(value: Any) -> str:
    if value == inference_pb2.FINISH_REASON_UNSPECIFIED:
        return ""
    return inference_pb2.FinishReason.Name(value).removeprefix("FINISH_REASON_").lower()
