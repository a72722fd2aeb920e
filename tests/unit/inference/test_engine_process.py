"""The engine process's reader: one bad request is refused, and the next one is read."""

import io
import os
from typing import Any, cast

import pytest
from loraland_core.errors import InvalidInput
from loraland_inference import engine_process, messages
from loraland_inference.engine_process import EngineLoop, Reader


class FakeEngine:
    """A tokenizer's owner that loads nothing."""

    tokenizer = None
    vocabulary_size = 2
    eos_token_ids = (1,)


class FakePreparer:
    """Raises what its input names."""

    def __init__(self, *_: Any) -> None:
        pass

    def tokens(self, given: messages.Input) -> list[int]:
        match given["text"]:
            case "deep":
                raise RecursionError("maximum recursion depth exceeded")
            case "wrong":
                raise InvalidInput("is wrong", field="input")
        return [7]


def test_reader_outlives_what_a_request_makes_a_library_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each request gets its own answer, and the end of the pipe ends the process."""
    monkeypatch.setattr(engine_process, "Preparer", FakePreparer)
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    sent: list[messages.Message] = []
    asked = [
        {"type": "tokenize", "id": text, "input": {"text": text}}
        for text in ("deep", "wrong", "good")
    ]
    lines = io.BytesIO(b"".join(messages.encode(message) for message in asked))
    engine = cast("Any", FakeEngine())

    Reader(lines, EngineLoop(engine, sent.append), cast("Any", None), engine).run()

    assert [(m["type"], m["id"], m.get("reason")) for m in sent] == [
        ("refused", "deep", "Unprepared"),
        ("refused", "wrong", "InvalidSpec"),
        ("tokens", "good", None),
    ]
    assert ended == [0]
