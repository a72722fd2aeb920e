"""An engine process without a model: speaks the pipe's language, and fails in every way on demand.

What a request does is its prompt: ``words`` echoes, ``crash`` and ``hang`` do that, ``refuse`` is
refused, ``full`` meets a full queue, ``broken`` is refused for a mistake of the engine's, ``wait``
answers nothing until it is cancelled. A request, a tokenization or a load whose name is ``stuck`` gets
no answer while all else does.
"""

import json
import os
import sys
import time
from typing import Any


def send(**message: Any) -> None:
    if message["type"] == "step":
        message["stats"] = {"num_running": 1}
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def end(id_: str, finish: str, text: str = "") -> None:
    output = {
        "id": id_, "text": text, "token_ids": [1], "finish": finish, "num_prompt_tokens": 1,
        "num_output_tokens": 1, "num_cached_tokens": 0, "queue_s": 0.0, "prefill_s": 0.0, "decode_s": 0.0,
    }  # fmt: skip
    send(type="step", outputs=[output])


def generate(message: dict[str, Any]) -> None:
    text = message["input"]["text"]
    if text == "stuck":
        return
    send(type="prepared", id=message["id"])
    match text:
        case "crash":
            os._exit(3)
        case "hang":
            time.sleep(3600)
        case "refuse":
            send(type="refused", id=message["id"], message="no", field="input", reason="X")
        case "full":
            send(type="refused", id=message["id"], message="no", field="", reason="EngineFull")
        case "broken":
            send(type="refused", id=message["id"], message="", field="", reason="Internal")
        case "wait":
            send(type="step", outputs=[])
        case _:
            send(type="step", outputs=[{"id": message["id"], "text": "so ", "token_ids": [7]}])
            end(message["id"], "stop", text)


def _text(message: dict[str, Any]) -> str:
    return str(message.get("input", {}).get("text", ""))


def main() -> None:
    send(
        type="ready", context_tokens=64, vocabulary_size=100, resolved_revision="r",
        precision="float32",
    )  # fmt: skip
    for line in sys.stdin:
        message = json.loads(line)
        match message["type"]:
            case "generate":
                generate(message)
            case "cancel":
                end(message["id"], "cancelled")
            case "tokenize" | "load" | "pack" if "stuck" in (message.get("path"), _text(message)):
                pass
            case "tokenize":
                send(type="tokens", id=message["id"], token_ids=[1, 2])
            case "load" if "bad" in message["path"]:
                send(type="load-failed", digest=message["digest"], message="bad", reason="Bad")
            case "load":
                send(type="loaded", digest=message["digest"])
            case "pack" if "bad" in message["folder"]:
                send(type="pack-failed", digest=message["digest"], message="bad", reason="Bad")
            case "pack":
                send(type="packed", digest=message["digest"], size_bytes=7)


if __name__ == "__main__":
    main()
