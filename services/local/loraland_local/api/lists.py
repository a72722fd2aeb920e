"""Lists: selection, order, paging and versions. No I/O beyond reading the store."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from . import conversion, errors, selectors
from .kinds import ResourceType
from .storage import Store, encode

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Page:
    """The objects of one answer and what the list's metadata say."""

    objects: list[Json]
    version: str
    continue_token: str
    remaining: int


def match(query: Mapping[str, str], resource: ResourceType) -> selectors.Match | None:
    """Combine the request's label and field selectors."""
    by_label = selectors.labels(query.get("labelSelector", ""))
    return selectors.both(by_label, selectors.fields(query.get("fieldSelector", ""), resource))


def number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name) or "0"
    if not text.isdigit():
        raise errors.bad_request(f'invalid {name} "{text}": strconv.ParseUint: invalid syntax')
    return int(text)


def page(store: Store, resource: ResourceType, namespace: str, query: Mapping[str, str]) -> Page:
    wanted = number(query, "resourceVersion")
    check_version(store, wanted)
    limit = number(query, "limit")
    version, start = store.version, ("", "")
    if query.get("continue"):
        version, start = _read_token(query["continue"])
    test = match(query, resource)
    found: list[Json] = []
    shelf = store.shelf(resource.storage_key)
    names = [name for name in store.names(resource.storage_key, namespace) if name > start]
    for index, name in enumerate(names):
        obj = shelf.objects[name]
        if test is not None and not test(obj):
            continue
        if limit and len(found) == limit:
            last = found[-1]["metadata"]
            token = _token(version, last.get("namespace", ""), last["name"], bool(namespace))
            return Page(found, str(version), token, 0 if test else len(names) - index)
        found.append(obj)
    return Page(found, str(version), "", 0)


def check_version(store: Store, wanted: int) -> None:
    if wanted <= store.version:
        return
    message = f"Timeout: Too large resource version: {wanted}, current: {store.version}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    details = {"causes": [cause], "retryAfterSeconds": 1}
    raise errors.ApiError(504, "Timeout", message, details=details)


def _token(version: int, namespace: str, name: str, in_namespace: bool) -> str:
    start = f"{name}\0" if in_namespace or not namespace else f"{namespace}/{name}\0"
    body = encode({"v": "meta.k8s.io/v1", "rv": version, "start": start, "ns": namespace})
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        body = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        name = str(body["start"]).rstrip("\0").rpartition("/")[2]
        return int(body["rv"]), (str(body.get("ns", "")), name)
    except (ValueError, KeyError) as error:
        raise errors.bad_request(f"continue key is not valid: {error}") from error


def body(store: Store, resource: ResourceType, found: Page) -> bytes:
    """Write the list; stored objects are copied as they are encoded."""
    meta: Json = {"resourceVersion": found.version}
    if found.continue_token or resource.custom is not None:
        meta = {"continue": found.continue_token, **meta}
        if found.remaining:
            meta["remainingItemCount"] = found.remaining
    if conversion.is_same_shape(resource):
        key = resource.storage_key
        parts = [
            store.encoded(key, (obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))
            for obj in found.objects
        ]
        if resource.custom is None:
            # The items of a built-in list do not say again what they are.
            own = encode({"kind": resource.kind, "apiVersion": resource.api_version})[:-1] + b","
            parts = [
                b"{" + part.removeprefix(own) if part.startswith(own) else part for part in parts
            ]
    else:
        parts = [encode(conversion.from_stored(obj, resource)) for obj in found.objects]
    head = {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": meta}
    return encode(head)[:-1] + b',"items":[' + b",".join(parts) + b"]}\n"
