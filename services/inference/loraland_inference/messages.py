"""What the front and the engine process say to each other: one JSON object a line. No I/O, no torch.

Front to engine: ``generate``, ``score``, ``tokenize``, ``cancel``, ``pack``, ``load``, ``unload``.
Engine to front: ``ready``, ``fatal``, ``step``, ``refused``, ``tokens``, ``prepared`` once a request
is read and tokenized, ``packed``, ``pack-failed``, ``loaded``, ``load-failed``. Each step of the
engine sends a ``step`` line, even if no request gained by it: the watchdog listens to them.
"""

import json
from typing import Any, Literal, TypedDict

Message = dict[str, Any]
# The reason of a refusal after a restart: the slot that the front means was the process before.
ADAPTER_LOST = "AdapterLost"
# The reason of a refusal that is nobody's fault: too much waits already.
ENGINE_FULL = "EngineFull"
# Why an adapter cannot be packed that is nothing against the adapter.
HOST_FULL = "HostTierFull"
# Why a packed adapter cannot be mapped: somebody took the file away.
PACKED_FILE_LOST = "PackedFileLost"
# The reason of a refusal that is our mistake; its traceback is in the log under the request's id.
INTERNAL = "Internal"
# A line holds at most one prompt or one step's outputs.
MAX_LINE_BYTES = 64 * 1024 * 1024


class Input(TypedDict, total=False):
    """Exactly one key. ``text`` gets the tokenizer's own special tokens; chats their template's."""

    text: str
    messages: list[dict[str, str]]
    token_ids: list[int]


class Caller(TypedDict):
    """Who asks: what ``generate`` and ``score`` carry of it."""

    tenant: str
    # Its share of the engine against others', and which of them go first.
    weight: float
    priority: int


class Logprob(TypedDict):
    token_id: int
    logprob: float
    top: list[tuple[int, float]]


class Grammar(TypedDict):
    """``text`` is a JSON schema, a regular expression, or a JSON list of choices."""

    kind: Literal["json_schema", "regex", "choice"]
    text: str


class Output(TypedDict, total=False):
    """What a step adds to one completion; the keys from ``finish`` on come with its last one."""

    id: str
    index: int
    text: str
    token_ids: list[int]
    # Only where they were asked for; of a scored completion, all at once.
    logprobs: list[Logprob]
    finish: Literal["stop", "length", "cancelled", "deadline", "refused", "failed"]
    error: str
    num_prompt_tokens: int
    num_output_tokens: int
    num_cached_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float


def encode(message: Message) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    message = json.loads(line)
    assert isinstance(message, dict), line[:100]
    return message
