"""Kubernetes' protobuf encoding of built-in kinds."""

import pytest
from loraland_local.api import wire
from loraland_local.api.errors import ApiError

CORE = "io.k8s.api.core.v1"


def field(number: int, value: bytes | str | int) -> bytes:
    """Write one protobuf field; short values only."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    data = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(data)]) + data


def envelope(kind: str, raw: bytes, api_version: str = "v1") -> bytes:
    type_meta = field(1, api_version) + field(2, kind)
    return wire.MAGIC + field(1, type_meta) + field(2, raw)


def test_object_is_read_with_kind_and_version() -> None:
    """The envelope says what is inside."""
    raw = field(1, field(1, "c")) + field(2, field(1, "key") + field(2, "value"))

    obj = wire.decode(envelope("ConfigMap", raw))

    assert obj == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"key": "value"},
    }


def test_bytes_become_base64() -> None:
    """A secret's values are binary on the wire and base64 in JSON."""
    raw = field(2, field(1, "k") + field(2, b"\x00\x01"))

    assert wire.decode_message(raw, f"{CORE}.Secret")["data"] == {"k": "AAE="}


def test_empty_values_are_left_out_and_chosen_zeros_kept() -> None:
    """Go writes an empty string only where it was meant; a pointer to zero was meant."""
    spec = field(1, 0) + field(5, 0)

    found = wire.decode_message(spec, "io.k8s.api.apps.v1.DeploymentSpec")

    assert found == {"replicas": 0}


def test_embedded_parts_are_flat_in_json() -> None:
    """A volume's source is a part of its own on the wire only."""
    directory = field(2, field(1, "Memory"))
    raw = field(1, "v") + field(2, directory)

    found = wire.decode_message(raw, f"{CORE}.Volume")

    assert found == {"name": "v", "emptyDir": {"medium": "Memory"}}


def test_times_are_rfc_3339() -> None:
    """Seconds since 1970 become text."""
    a_billion_seconds = bytes([1 << 3, 0x80, 0x94, 0xEB, 0xDC, 0x03])

    found = wire.decode_message(field(8, a_billion_seconds), f"{wire.META}.ObjectMeta")

    assert found == {"creationTimestamp": "2001-09-09T01:46:40Z"}


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", envelope("Nothing", b""), wire.MAGIC + b"\x0a\xff"],
    ids=["empty", "no magic", "unknown kind", "cut off"],
)
def test_unreadable_body_is_a_bad_request(body: bytes) -> None:
    """A client that sends something else is told so."""
    with pytest.raises(ApiError, match="protobuf body cannot be read"):
        wire.decode(body)
