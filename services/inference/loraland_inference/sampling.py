"""From protobuf sampling parameters to the engine's: every limit on them is here. Pure.

Raises ``InvalidInput`` naming the field as the caller wrote it.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from loraland_core.errors import InvalidInput
from loraland_core.rpc import inference_pb2

from loraland_inference import messages
from loraland_inference.requests import ModelLimits, check_vocabulary

DEFAULT_MAX_TOKENS = 128
MAX_STOP_STRINGS = 8
MAX_STOP_BYTES = 128
MAX_STOP_TOKEN_IDS = 32
MAX_TEMPERATURE = 100.0
MAX_PENALTY = 2.0
MAX_REPETITION_PENALTY = 10.0
MAX_BIASED_TOKENS = 300
MAX_BIAS = 100.0
MAX_LOGPROBS = 20
MAX_COMPLETIONS = 16
MAX_GRAMMAR_BYTES = 64 * 1024
MAX_CHOICES = 256


def build_params(given: inference_pb2.SamplingParams, limits: ModelLimits) -> dict[str, Any]:
    """Return the sampling parameters as the engine names them."""
    top_p = given.top_p if given.HasField("top_p") else 1.0
    repetition = given.repetition_penalty if given.HasField("repetition_penalty") else 1.0
    _check_number(given.temperature, "temperature", 0.0, MAX_TEMPERATURE)
    _check_number(top_p, "top_p", 0.0, 1.0, above=True)
    _check_number(given.min_p, "min_p", 0.0, 1.0)
    _check_number(repetition, "repetition_penalty", 0.0, MAX_REPETITION_PENALTY, above=True)
    _check_number(given.presence_penalty, "presence_penalty", -MAX_PENALTY, MAX_PENALTY)
    _check_number(given.frequency_penalty, "frequency_penalty", -MAX_PENALTY, MAX_PENALTY)
    _check_count(given.max_tokens, "max_tokens", limits.context_tokens, "the context's tokens")
    _check_count(given.logprobs, "logprobs", min(MAX_LOGPROBS, limits.vocabulary_size))
    _check_count(given.n, "n", MAX_COMPLETIONS)
    return {
        "max_tokens": given.max_tokens or min(DEFAULT_MAX_TOKENS, limits.context_tokens),
        "temperature": given.temperature,
        "top_k": min(given.top_k, limits.vocabulary_size),
        "top_p": top_p,
        "min_p": given.min_p,
        "repetition_penalty": repetition,
        "presence_penalty": given.presence_penalty,
        "frequency_penalty": given.frequency_penalty,
        "logit_bias": _logit_bias(given.logit_bias, limits),
        "seed": given.seed if given.HasField("seed") else None,
        "num_logprobs": given.logprobs if given.HasField("logprobs") else None,
        "n": given.n or 1,
        "stop": _stop(given),
        "stop_token_ids": _stop_token_ids(given, limits),
        "ignore_eos": given.ignore_eos,
    }


def build_grammar(given: inference_pb2.SamplingParams) -> messages.Grammar | None:
    """Return the form that the answer must have; whether it is a good one, the engine says."""
    kind = given.constraint.WhichOneof("kind")
    if kind is None:
        if given.HasField("constraint"):
            raise InvalidInput(
                "give one of json_schema, regex, choice", field="sampling.constraint"
            )
        return None
    if given.ignore_eos:
        raise InvalidInput(
            "cannot be combined with a constraint, which says where an answer ends",
            field="sampling.ignore_eos",
        )
    text = _choices(given.constraint.choice) if kind == "choice" else ""
    text = text or str(getattr(given.constraint, kind))
    if not 1 <= len(text.encode()) <= MAX_GRAMMAR_BYTES:
        raise InvalidInput(
            f"has {len(text.encode())} bytes; expected 1 to {MAX_GRAMMAR_BYTES}",
            field=f"sampling.constraint.{kind}",
        )
    return {"kind": kind, "text": text}


def _choices(given: inference_pb2.Choice) -> str:
    options = list(given.options)
    if not 1 <= len(options) <= MAX_CHOICES or not all(options):
        raise InvalidInput(
            f"has {len(options)} options; expected 1 to {MAX_CHOICES}, none of them empty",
            field="sampling.constraint.choice",
        )
    return json.dumps(options, ensure_ascii=False)


def _check_number(value: float, name: str, low: float, high: float, *, above: bool = False) -> None:
    is_inside = (low < value if above else low <= value) and value <= high
    if not math.isfinite(value) or not is_inside:
        start = f"above {low:g}" if above else f"from {low:g}"
        raise InvalidInput(f"is {value:g}; expected {start} to {high:g}", field=f"sampling.{name}")


def _check_count(value: int, name: str, most: int, what: str = "the limit") -> None:
    if value > most:
        raise InvalidInput(f"is {value}, more than {most}, {what}", field=f"sampling.{name}")


def _logit_bias(given: Mapping[int, float], limits: ModelLimits) -> list[tuple[int, float]]:
    field = "sampling.logit_bias"
    if len(given) > MAX_BIASED_TOKENS:
        raise InvalidInput(f"has {len(given)} entries, more than {MAX_BIASED_TOKENS}", field=field)
    check_vocabulary(list(given), limits, field)
    for token_id, value in given.items():
        _check_number(value, f"logit_bias[{token_id}]", -MAX_BIAS, MAX_BIAS)
    return sorted(given.items())


def _stop(given: inference_pb2.SamplingParams) -> list[str]:
    if len(given.stop) > MAX_STOP_STRINGS:
        raise InvalidInput(
            f"has {len(given.stop)} entries, more than {MAX_STOP_STRINGS}", field="sampling.stop"
        )
    for index, text in enumerate(given.stop):
        if not 1 <= len(text.encode()) <= MAX_STOP_BYTES:
            raise InvalidInput(
                f"has {len(text.encode())} bytes; expected 1 to {MAX_STOP_BYTES}",
                field=f"sampling.stop[{index}]",
            )
    return list(given.stop)


def _stop_token_ids(given: inference_pb2.SamplingParams, limits: ModelLimits) -> list[int]:
    if len(given.stop_token_ids) > MAX_STOP_TOKEN_IDS:
        raise InvalidInput(
            f"has {len(given.stop_token_ids)} entries, more than {MAX_STOP_TOKEN_IDS}",
            field="sampling.stop_token_ids",
        )
    check_vocabulary(list(given.stop_token_ids), limits, "sampling.stop_token_ids")
    return list(given.stop_token_ids)
