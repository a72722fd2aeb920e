"""What the front and the engine process say to each other: one JSON object a line. No I/O, no torch.

Front to engine: ``generate``, ``score``, ``tokenize``, ``cancel``, ``load``, ``unload``.
Engine to front: ``ready``, ``fatal``, ``step``, ``refused``, ``scored``, ``tokens``, ``loaded``,
``load-failed``. Each step of the engine sends a ``step`` line, even if no request gained by it: the
watchdog listens to them.
"""

import json
from typing import Any, Literal, TypedDict

Message = dict[str, Any]
# The reason of a refusal after a restart: the slot that the front means was the process before.
ADAPTER_LOST = "AdapterLost"
# A line holds at most one prompt or one step's outputs.
MAX_LINE_BYTES = 64 * 1024 * 1024


class Input(TypedDict, total=False):
    """Exactly one key. ``text`` gets the tokenizer's own special tokens; chats their template's."""

    text: str
    messages: list[dict[str, str]]
    token_ids: list[int]


class Output(TypedDict, total=False):
    """What a step adds to one request; the keys after ``token_ids`` come with the last one."""

    id: str
    text: str
    token_ids: list[int]
    finish: Literal["stop", "length", "cancelled", "deadline"]
    num_prompt_tokens: int
    num_output_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float
    logprob: float


def encode(message: Message) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    message = json.loads(line)
    assert isinstance(message, dict), line[:100]
    return message
