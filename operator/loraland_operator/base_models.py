"""The catalogue as it stands in its file now: a mounted ConfigMap that may change under us."""

import logging
from pathlib import Path

from loraland_core import catalogue
from loraland_core.catalogue import BaseModelEntry, Catalogue
from loraland_core.errors import InvalidInput

log = logging.getLogger(__name__)


class BaseModels:
    """Reads the file again when it changed; a broken one leaves the last good catalogue in force."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._read_stamp()
        self._catalogue = catalogue.load(path)

    def find(self, name: str) -> BaseModelEntry | None:
        return self._current().base_models.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._current().base_models))

    def _current(self) -> Catalogue:
        stamp = self._read_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._catalogue = catalogue.load(self._path)
            except InvalidInput as error:
                log.error("the catalogue cannot be used, the last one stays in force: %s", error)
        return self._catalogue

    def _read_stamp(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_ino)
