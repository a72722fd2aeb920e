"""The stack's notice board: which station is in which state, kept in ``stack.json``."""

import time
from typing import Any

from loraland_local.layout import Layout, StackRecord, StackState, Station


class Board:
    """Writes the record when something that people can see has changed."""

    def __init__(self, layout: Layout, record: StackRecord) -> None:
        self._layout = layout
        self._started: dict[str, float] = {}
        self.record = record
        self._write()

    def set_state(self, state: StackState, **changes: Any) -> None:
        self.record = self.record.model_copy(update={"state": state, **changes})
        self._write()

    def station(self, name: str) -> Station:
        return next(s for s in self.record.stations if s.name == name)

    def starting(self, name: str, detail: str = "", **changes: Any) -> None:
        self._started.setdefault(name, time.monotonic())
        self._change(name, state="starting", detail=detail, **changes)

    def ready(self, name: str, detail: str = "", **changes: Any) -> None:
        seconds = round(time.monotonic() - self._started.get(name, time.monotonic()), 2)
        self._change(name, state="ready", detail=detail, seconds=seconds, **changes)

    def failed(self, name: str, detail: str) -> None:
        self._change(name, state="failed", detail=detail)

    def restarting(self, name: str, detail: str) -> None:
        restarts = self.station(name).restarts + 1
        self._change(name, state="restarting", detail=detail, restarts=restarts, pid=None)

    def stopped(self, name: str) -> None:
        """Note the end of a station, unless its failure is what people should see."""
        state = "failed" if self.station(name).state == "failed" else "stopped"
        self._change(name, state=state, pid=None)

    def _change(self, name: str, **changes: Any) -> None:
        before = self.station(name)
        after = before.model_copy(update=changes)
        if after == before:
            return
        stations = [after if s.name == name else s for s in self.record.stations]
        self.record = self.record.model_copy(update={"stations": stations})
        self._write()

    def _write(self) -> None:
        self._layout.write_record(self.record)
