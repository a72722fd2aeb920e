"""Settings of a replica's outside: defaults, and what is said of wrong ones."""

import re
from pathlib import Path

import pytest
from loraland_core.errors import InvalidInput
from loraland_inference import access
from loraland_inference.access import Access, TlsFiles

ROOT = Path(__file__).parents[3]


def test_every_setting_of_a_replica_is_documented() -> None:
    """What it reads from its environment stands on the page."""
    package = ROOT / "services/inference/loraland_inference"
    text = (package / "config.py").read_text() + (package / "access.py").read_text()
    page = (ROOT / "docs/operations.md").read_text()
    read = set(re.findall(r'"(LORALAND_[A-Z_]+)"', text))

    assert {s for s in read if not _is_on(page, s)} == set()


def _is_on(page: str, setting: str) -> bool:
    families = re.findall(r"`(LORALAND_[A-Z]+_)\*`", page)
    return f"`{setting}`" in page or any(setting.startswith(f) for f in families)


def test_nothing_need_be_set() -> None:
    """Clear text, no traces, ten minutes."""
    assert access.read({}) == Access(None, 600, 50, "", 1.0)


def test_everything_can_be_set() -> None:
    """As a deployment with all of it would."""
    read = access.read(
        {
            "LORALAND_TLS_CERT_FILE": "/tls/tls.crt",
            "LORALAND_TLS_KEY_FILE": "/tls/tls.key",
            "LORALAND_TLS_CLIENT_CA_FILE": "/tls/ca.crt",
            "LORALAND_MAX_DEADLINE_S": "30",
            "LORALAND_METRICS_TOP": "0",
            "LORALAND_TRACES_ENDPOINT": "http://collector:4317",
            "LORALAND_TRACES_SAMPLE_RATIO": "0.1",
        }
    )

    tls = TlsFiles(Path("/tls/tls.crt"), Path("/tls/tls.key"), Path("/tls/ca.crt"))
    assert read == Access(tls, 30, 0, "http://collector:4317", 0.1)


@pytest.mark.parametrize(
    ("environ", "field"),
    [
        ({"LORALAND_TLS_CERT_FILE": "/c"}, "LORALAND_TLS_KEY_FILE"),
        ({"LORALAND_TLS_KEY_FILE": "/k"}, "LORALAND_TLS_CERT_FILE"),
        ({"LORALAND_TLS_CLIENT_CA_FILE": "/ca"}, "LORALAND_TLS_CLIENT_CA_FILE"),
        ({"LORALAND_MAX_DEADLINE_S": "0"}, "LORALAND_MAX_DEADLINE_S"),
        ({"LORALAND_MAX_DEADLINE_S": "1.5"}, "LORALAND_MAX_DEADLINE_S"),
        ({"LORALAND_METRICS_TOP": "1001"}, "LORALAND_METRICS_TOP"),
        ({"LORALAND_TRACES_ENDPOINT": "collector:4317"}, "LORALAND_TRACES_ENDPOINT"),
        ({"LORALAND_TRACES_ENDPOINT": "http://u:p@c:4317"}, "LORALAND_TRACES_ENDPOINT"),
        ({"LORALAND_TRACES_SAMPLE_RATIO": "2"}, "LORALAND_TRACES_SAMPLE_RATIO"),
        ({"LORALAND_TRACES_SAMPLE_RATIO": "nan"}, "LORALAND_TRACES_SAMPLE_RATIO"),
    ],
    ids=[
        "no-key", "no-certificate", "ca-alone", "no-deadline", "fraction", "too-many-labels",
        "no-scheme", "password", "ratio", "nan",
    ],
)  # fmt: skip
def test_wrong_setting_is_named(environ: dict[str, str], field: str) -> None:
    """The variable is the field; no value that may hold a secret is quoted."""
    with pytest.raises(InvalidInput) as caught:
        access.read(environ)

    assert caught.value.field == field
    assert "u:p" not in str(caught.value)
