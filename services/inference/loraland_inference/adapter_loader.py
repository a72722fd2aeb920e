"""The engine process's threads for adapters, so that the step loop never waits for a disk.

One packs what comes from the disk tier for the first time, another one maps what is packed: a large
adapter that is packed holds up no other that is only to be mapped.
"""

import errno
import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from loraland_core.errors import LoraLandError
from loraland_engine.adapter_reader import AdapterReader
from loraland_engine.lora import LoraAdapter

from loraland_inference import messages
from loraland_inference.messages import Message

log = logging.getLogger("loraland.engine")

_FULL = (errno.ENOSPC, errno.EDQUOT)


class AdapterLoader:
    """Answers ``pack`` itself; a ``load`` that succeeded goes to ``insert``, in the step loop."""

    def __init__(
        self,
        reader: AdapterReader,
        *,
        send: Callable[[Message], None],
        insert: Callable[[Message, LoraAdapter], None],
    ) -> None:
        self._reader = reader
        self._send = send
        self._insert = insert
        self._packs: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._loads: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def start(self) -> None:
        for name, requests, work in (
            ("packer", self._packs, self._pack),
            ("loader", self._loads, self._load),
        ):
            threading.Thread(
                target=self._run, args=(requests, work), name=name, daemon=True
            ).start()

    def post(self, message: Message) -> None:
        """Take a ``pack`` or ``load`` message."""
        (self._packs if message["type"] == "pack" else self._loads).put(message)

    def _run(self, requests: "queue.SimpleQueue[Message]", work: Callable[[Message], None]) -> None:
        while True:
            message = requests.get()
            try:
                work(message)
            except LoraLandError as error:
                self._fail(message, str(error), getattr(error, "reason", "ArtifactInvalid"))
            except OSError as error:
                reason = messages.HOST_FULL if error.errno in _FULL else "ArtifactInvalid"
                self._fail(message, f"cannot be packed: {error.strerror}", reason)
            # Whatever a hostile file brings a library to raise fails this adapter alone.
            except Exception as error:
                log.exception("adapter %s cannot be read", message["digest"])
                self._fail(message, f"cannot be read: {error}", "ArtifactInvalid")

    def _pack(self, message: Message) -> None:
        size_bytes = self._reader.pack(Path(message["folder"]), Path(message["path"]))
        self._send({"type": "packed", "digest": message["digest"], "size_bytes": size_bytes})

    def _load(self, message: Message) -> None:
        self._insert(message, self._reader.read_packed(Path(message["path"])))

    def _fail(self, message: Message, text: str, reason: str) -> None:
        self._send(
            {
                "type": f"{message['type']}-failed",
                "digest": message["digest"],
                "message": text,
                "reason": reason,
            }
        )
