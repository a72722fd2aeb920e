"""Progress of a starting stack: one line for each station, and again when its story changes."""

import time

from loraland_local.layout import StackRecord, Station
from rich.markup import escape

from loraland_cli.console import out

# A station that takes its time says what it does, but not more often than this.
_DETAIL_EVERY_S = 5.0
_MAX_DETAIL = 100


class StationPrinter:
    """Prints what changed since the last record."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._last_detail: dict[str, float] = {}

    def show(self, record: StackRecord) -> None:
        for station in record.stations:
            if station.state == "starting" and station.detail:
                self._show_detail(station)
            elif self._shown.get(station.name) != station.state:
                self._show_state(station)

    def _show_state(self, station: Station) -> None:
        self._shown[station.name] = station.state
        if station.state == "ready":
            seconds = f"{station.seconds or 0:5.1f} s"
            out.print(f"  [green]✓[/green] {station.name:<13} {seconds}  {station.address}")
        elif station.state in ("failed", "restarting"):
            out.print(f"  [red]✗[/red] {station.name:<13} {escape(station.detail)}")

    def _show_detail(self, station: Station) -> None:
        now = time.monotonic()
        first = self._last_detail.setdefault(station.name, now)
        if now - first >= _DETAIL_EVERY_S and self._shown.get(station.name) != station.detail:
            self._last_detail[station.name] = now
            self._shown[station.name] = station.detail
            detail = escape(station.detail[:_MAX_DETAIL])
            out.print(f"  [dim]… {station.name:<13} {detail}[/dim]")
