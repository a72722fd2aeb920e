"""The process that owns the model: ``python -m loraland_inference.engine_process SETTINGS``.

Lines of ``messages`` come on standard input and leave on standard output. Four threads: one reads
and tokenizes, one packs adapters, one maps packed ones, and the main one steps the engine, alone
with the model.
The end of standard input means that the front is gone: so is this process then.
"""

import faulthandler
import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from loraland_core import logs
from loraland_core.catalogue import BaseModelEntry
from loraland_core.errors import InvalidInput, LoraLandError
from loraland_core.store import StoreConfig
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.grammar import GrammarCompiler
from loraland_engine.limits import EngineFull, Limits
from loraland_engine.lora import LoraAdapter
from loraland_engine.sequence import Caller
from loraland_models import sources, weights

from loraland_inference import messages, preparation
from loraland_inference.adapter_loader import AdapterLoader
from loraland_inference.messages import Message
from loraland_inference.preparation import Prepared, Preparer

log = logging.getLogger("loraland.engine")

# More would let one long prompt hold up everybody's next token for longer.
MAX_STEP_TOKENS = 256
# So much as to fill KV memory this many times may wait for it.
MAX_WAITING_KV = 16.0

Event = tuple[str, Message, Any]


class EngineLoop:
    """The main thread's side: applies what the other threads prepared, and steps."""

    def __init__(self, engine: Engine, send: Callable[[Message], None]) -> None:
        self._engine = engine
        self.send = send
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def post(self, event: Event) -> None:
        """Hand something to the main thread; called from the others."""
        self._events.put(event)

    def run(self) -> None:
        while True:
            self._apply_events()
            outputs = self._engine.step()
            for output in outputs:
                if output.failure is not None:
                    log.error("request %s failed", output.request_id, exc_info=output.failure)
            self.send(
                {
                    "type": "step",
                    "outputs": [preparation.describe(o) for o in outputs],
                    "stats": asdict(self._engine.stats()),
                }
            )

    def _apply_events(self) -> None:
        """Apply what is there; wait for something only while there is no work."""
        while not (self._events.empty() and self._engine.has_work()):
            kind, message, prepared = self._events.get()
            try:
                if message.get("adapter") and not self._engine.has_adapter(message["adapter"]):
                    raise InvalidInput(
                        "is not in a slot", field="adapter", reason=messages.ADAPTER_LOST
                    )
                getattr(self, f"_{kind}")(message, prepared)
            except (InvalidInput, EngineFull) as error:
                self.send(refusal(message, error))
            except Exception:
                # A request is begun whole or not at all. Of a slot nobody could say as much.
                if kind not in ("generate", "score"):
                    raise
                log.exception("request %s cannot be begun", message["id"])
                self.send(refusal(message, InvalidInput("", reason=messages.INTERNAL)))

    def _generate(self, message: Message, prepared: Prepared) -> None:
        self._engine.submit(
            message["id"],
            prepared.token_ids,
            prepared.params,
            adapter_id=message["adapter"],
            caller=Caller(**message["caller"]),
            constraint=prepared.constraint,
            deadline_s=self._engine.now_s() + message["deadline_in_s"],
        )

    def _score(self, message: Message, prepared: Prepared) -> None:
        self._engine.submit_score(
            message["id"],
            prepared.token_ids,
            prepared.completions,
            adapter_id=message["adapter"],
            caller=Caller(**message["caller"]),
            deadline_s=self._engine.now_s() + message["deadline_in_s"],
        )

    def _cancel(self, message: Message, _: None) -> None:
        self._engine.cancel(message["id"])

    def _insert(self, message: Message, adapter: LoraAdapter) -> None:
        if not self._engine.has_adapter(message["digest"]):
            self._engine.insert_adapter(message["digest"], adapter)
        self.send({"type": "loaded", "digest": message["digest"]})

    def _unload(self, message: Message, _: None) -> None:
        if self._engine.has_adapter(message["digest"]):
            self._engine.remove_adapter(message["digest"])


class Reader(threading.Thread):
    """Reads lines and tokenizes, in order, so that a cancel never overtakes its request."""

    def __init__(
        self, lines: BinaryIO, loop: EngineLoop, loader: AdapterLoader, engine: Engine
    ) -> None:
        super().__init__(name="reader", daemon=True)
        self._lines = lines
        self._loop = loop
        self._loader = loader
        grammars = GrammarCompiler(
            engine.tokenizer,
            vocabulary_size=engine.vocabulary_size,
            eos_token_ids=engine.eos_token_ids,
        )
        self._preparer = Preparer(engine.tokenizer, grammars)
        self._send = loop.send

    def run(self) -> None:
        for line in self._lines:
            message = messages.decode(line)
            try:
                self._dispatch(message)
            except InvalidInput as error:
                self._send(refusal(message, error))
            # Without its reader the engine would hear of no other request.
            except Exception:
                log.exception("a %s request cannot be prepared", message["type"])
                self._send(
                    refusal(message, InvalidInput("cannot be prepared", reason="Unprepared"))
                )
        os._exit(0)

    def _dispatch(self, message: Message) -> None:
        match message["type"]:
            case "load" | "pack":
                self._loader.post(message)
            case "tokenize":
                token_ids = self._preparer.tokens(message["input"])
                self._send({"type": "tokens", "id": message["id"], "token_ids": token_ids})
            case "generate":
                self._loop.post(("generate", message, self._preparer.generation(message)))
                self._send({"type": "prepared", "id": message["id"]})
            case "score":
                self._loop.post(("score", message, self._preparer.scoring(message)))
                self._send({"type": "prepared", "id": message["id"]})
            case "cancel" | "unload" as kind:
                self._loop.post((kind, message, None))


def refusal(message: Message, error: InvalidInput | EngineFull) -> Message:
    if isinstance(error, EngineFull):
        error = InvalidInput(str(error), reason=messages.ENGINE_FULL)
    return {
        "type": "refused",
        "id": message.get("id", ""),
        "message": str(error).removeprefix(f"{error.field}: "),
        "field": error.field,
        "reason": error.reason,
    }


def build_engine(settings: dict[str, Any]) -> tuple[Engine, Message]:
    """Load the base model; return the engine and what the front has to know of it."""
    entry = BaseModelEntry.model_validate(settings["entry"])
    model_source = sources.resolve(
        settings["base_model"],
        entry,
        cache_dir=Path(settings["cache_dir"]),
        store=StoreConfig.model_validate(settings["store"]),
        report=log.info,
    )
    precision = weights.serving_precision(entry)
    model = weights.load_model(model_source, precision)
    engine = Engine(
        model,
        weights.load_tokenizer(model_source),
        EngineConfig(
            max_running=settings["max_running"],
            max_step_tokens=max(MAX_STEP_TOKENS, settings["max_running"]),
            context_tokens=entry.limits.context_tokens,
            num_slots=settings["num_slots"],
            kv_memory_bytes=settings["kv_memory_bytes"],
            prefix_cache=settings["prefix_cache"],
            limits=Limits(max_waiting=settings["max_queue"], max_waiting_kv=MAX_WAITING_KV),
            max_rank=entry.limits.max_rank,
            keeps_model=False,
        ),
    )
    return engine, {
        "type": "ready",
        "context_tokens": engine.context_tokens,
        "vocabulary_size": engine.vocabulary_size,
        "resolved_revision": model_source.revision,
        "precision": precision.label,
    }


def main() -> None:
    settings = json.loads(sys.argv[1])
    logs.configure(level=settings["log_level"], as_json=settings["log_as_json"])
    # The front asks for the stacks of a process that it is about to kill.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # A signal to the whole group is the front's to answer; it lets running requests finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send = _claim_standard_output()
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    try:
        engine, ready = build_engine(settings)
    except LoraLandError as error:
        send({"type": "fatal", "message": str(error)})
        sys.exit(1)
    loop = EngineLoop(engine, send)
    loader = AdapterLoader(
        engine.adapters,
        send=send,
        insert=lambda message, adapter: loop.post(("insert", message, adapter)),
    )
    loader.start()
    Reader(sys.stdin.buffer, loop, loader, engine).start()
    send(ready)
    loop.run()


def _claim_standard_output() -> Callable[[Message], None]:
    """Return the way to the front; whatever else prints goes to standard error from now on."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    lock = threading.Lock()

    def send(message: Message) -> None:
        with lock:
            pipe.write(messages.encode(message))
            pipe.flush()

    return send


if __name__ == "__main__":
    main()
