"""What files a ConfigMap, Secret, downwardAPI or projected volume holds. Pure, no I/O."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import downward, environment
from loraland_local.kubelet.environment import MissingObjectError, Source

_DEFAULT_MODE = 0o644


@dataclasses.dataclass(frozen=True)
class File:
    content: bytes
    mode: int


Files = dict[str, File]
MintToken = Callable[[str, int], str]
"""(audience, seconds until it expires) → a token of the pod's ServiceAccount."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What the files are made from."""

    pod: Object
    source: Source
    tokens: Mapping[tuple[str, int], str]
    node_allocatable: dict[str, str]


def is_projection(volume: Object) -> bool:
    return any(kind in volume for kind in ("configMap", "secret", "downwardAPI", "projected"))


def build_files(volume: Object, context: Context) -> Files:
    """Return the files of one volume by relative path."""
    if "projected" in volume:
        projected = volume["projected"]
        mode = int(projected.get("defaultMode", _DEFAULT_MODE))
        files: Files = {}
        for source in projected.get("sources") or []:
            files.update(_build_source(source, mode, context))
        return files
    for kind in ("configMap", "secret", "downwardAPI"):
        if kind in volume:
            mode = int(volume[kind].get("defaultMode", _DEFAULT_MODE))
            return _build_source({kind: volume[kind]}, mode, context)
    raise ValueError(f"volume {volume.get('name')!r} holds no files of its own")


def list_tokens(pod: Object) -> Iterator[tuple[str, int]]:
    """Yield (audience, expiration in seconds) of each token that the pod's volumes want."""
    for volume in (pod.get("spec") or {}).get("volumes") or []:
        for source in (volume.get("projected") or {}).get("sources") or []:
            if "serviceAccountToken" in source:
                yield _token_key(source["serviceAccountToken"])


def list_references(pod: Object) -> set[tuple[str, str]]:
    """Return (kind, name) of each ConfigMap and Secret whose files the pod mounts."""
    found = set()
    for volume in (pod.get("spec") or {}).get("volumes") or []:
        for source in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
            if "configMap" in source:
                found.add(("ConfigMap", source["configMap"].get("name", "")))
            if "secret" in source:
                secret = source["secret"]
                found.add(("Secret", secret.get("secretName") or secret.get("name", "")))
    return found


def _token_key(source: Object) -> tuple[str, int]:
    return str(source.get("audience") or ""), int(source.get("expirationSeconds") or 3600)


def _build_source(source: Object, mode: int, context: Context) -> Files:
    if "configMap" in source:
        reference = source["configMap"]
        obj = context.source.config_map(reference["name"])
        return _select("ConfigMap", reference["name"], reference, obj, mode)
    if "secret" in source:
        reference = source["secret"]
        name = reference.get("secretName") or reference["name"]
        return _select("Secret", name, reference, context.source.secret(name), mode)
    if "downwardAPI" in source:
        return _build_downward(source["downwardAPI"], mode, context)
    if "serviceAccountToken" in source:
        wanted = source["serviceAccountToken"]
        token = context.tokens[_token_key(wanted)]
        # Readable by its owner alone, as a credential should be.
        return {wanted["path"]: File(token.encode(), 0o600)}
    raise ValueError(f"projected volume: unknown source {sorted(source)}")


def _select(kind: str, name: str, reference: Object, obj: Object | None, mode: int) -> Files:
    if obj is None:
        if reference.get("optional"):
            return {}
        raise MissingObjectError(f'{kind.lower()} "{name}" not found')
    data = environment.data_of(kind, obj)
    if not reference.get("items"):
        return {key: File(value, mode) for key, value in data.items()}
    files = {}
    for item in reference["items"]:
        if item["key"] in data:
            files[item["path"]] = File(data[item["key"]], int(item.get("mode", mode)))
        elif not reference.get("optional"):
            raise MissingObjectError(
                f"references non-existent {kind.lower()} key: {item['key']} (of {name})"
            )
    return files


def _build_downward(source: Object, mode: int, context: Context) -> Files:
    files = {}
    for item in source.get("items") or []:
        if "fieldRef" in item:
            text = downward.field(context.pod, item["fieldRef"]["fieldPath"])
        else:
            reference = item["resourceFieldRef"]
            containers = context.pod["spec"]["containers"]
            container = next(c for c in containers if c["name"] == reference["containerName"])
            text = downward.resource(reference, container, context.node_allocatable)
        files[item["path"]] = File(text.encode(), int(item.get("mode", mode)))
    return files
