"""An artifact store in memory, for tests without a server; held to the real one by a contract test."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from loraland_core.errors import InvalidInput, NotFound
from loraland_core.store import Store, StoreConfig, StoredObject


class FakeStore(Store):
    """Keeps objects in a dictionary; never talks to anything."""

    def __init__(self) -> None:
        self.config = StoreConfig(bucket="fake", prefix="land")
        self._prefix = "land/"
        self.objects: dict[str, bytes] = {}

    def close(self) -> None:
        pass

    def read(self, key: str, *, max_bytes: int = 4 * 1024 * 1024) -> bytes:
        if key not in self.objects:
            raise NotFound(f"{self.uri(key)} does not exist")
        if len(self.objects[key]) > max_bytes:
            raise InvalidInput(f"is larger than {max_bytes} bytes", field=self.uri(key))
        return self.objects[key]

    def write(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def upload(self, path: Path, key: str) -> None:
        self.objects[key] = path.read_bytes()

    def download(self, key: str, path: Path, *, max_bytes: int) -> str:
        data = self.read(key, max_bytes=max_bytes)
        path.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def exists(self, key: str) -> bool:
        return key in self.objects

    def find_objects(self, prefix: str) -> Iterator[StoredObject]:
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield StoredObject(key, len(self.objects[key]))

    def delete_prefix(self, prefix: str) -> int:
        found = [key for key in self.objects if key.startswith(prefix)]
        for key in found:
            del self.objects[key]
        return len(found)
