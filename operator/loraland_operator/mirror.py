"""The objects that the watch streams showed last, by kind, namespace and name. No I/O.

It saves reads, and is never proof that something is gone: who must know that asks the API server.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from loraland_core import names

Object = Mapping[str, Any]


class Key(NamedTuple):
    """Names one object."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Mirror:
    """Keeps the newer one of two versions of an object, in whatever order they come."""

    def __init__(self) -> None:
        self._by_kind: dict[str, dict[Key, Object]] = defaultdict(dict)
        self._pods_by_job: dict[str, dict[Key, Object]] = defaultdict(dict)

    def is_news(self, obj: Object) -> bool:
        key = key_of(obj)
        before = self._by_kind[key.kind].get(key)
        return before is None or _is_newer(obj, before)

    def put(self, obj: Object) -> bool:
        """Take an object in; return whether it is news."""
        if not self.is_news(obj):
            return False
        key = key_of(obj)
        self._by_kind[key.kind][key] = obj
        if key.kind == "Pod":
            self._pods_by_job[_job_uid(obj)][key] = obj
        return True

    def remove(self, obj: Object) -> bool:
        """Forget an object, unless another one of its name came meanwhile; whether it was there."""
        key = key_of(obj)
        before = self._by_kind[key.kind].get(key)
        if before is None or before["metadata"].get("uid") != obj["metadata"].get("uid"):
            return False
        del self._by_kind[key.kind][key]
        if key.kind == "Pod":
            uid = _job_uid(before)
            self._pods_by_job[uid].pop(key, None)
            if not self._pods_by_job[uid]:
                del self._pods_by_job[uid]
        return True

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._by_kind[kind].get(Key(kind, namespace, name))

    def of_kind(self, kind: str) -> list[Object]:
        return list(self._by_kind[kind].values())

    def pods_of(self, job_uid: str) -> list[Object]:
        """Return the pods of a FineTuneJob."""
        return list(self._pods_by_job.get(job_uid, {}).values())


def _job_uid(pod: Object) -> str:
    labels: Mapping[str, str] = pod["metadata"].get("labels") or {}
    return labels.get(names.LABEL_JOB_UID, "")


def key_of(obj: Object) -> Key:
    metadata = obj["metadata"]
    return Key(obj["kind"], metadata["namespace"], metadata["name"])


def _is_newer(one: Object, other: Object) -> bool:
    """Return whether ``one`` may replace ``other``: another object, or a later version."""
    a, b = one["metadata"], other["metadata"]
    if a.get("uid") != b.get("uid"):
        return True
    one_version, other_version = str(a.get("resourceVersion")), str(b.get("resourceVersion"))
    # Kubernetes promises that resource versions of one kind are whole numbers that grow.
    if one_version.isdigit() and other_version.isdigit():
        return int(one_version) > int(other_version)
    return one_version != other_version
