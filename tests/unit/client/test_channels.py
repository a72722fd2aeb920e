"""Channels: what a caller says of its credentials, and what is said of files that are not there."""

from pathlib import Path

import pytest
from loraland_client.channels import Tls
from loraland_core.errors import InvalidInput


def test_tls_is_read_from_files(tmp_path: Path) -> None:
    """What is not named stays the system's."""
    ca = tmp_path / "ca.crt"
    ca.write_bytes(b"PEM")

    assert Tls.read(ca=ca, server_name="replica") == Tls(ca=b"PEM", server_name="replica")


def test_tls_names_the_file_that_cannot_be_read(tmp_path: Path) -> None:
    """The path is the field."""
    with pytest.raises(InvalidInput, match="cannot be read") as caught:
        Tls.read(ca=tmp_path / "absent.crt")

    assert caught.value.field == str(tmp_path / "absent.crt")


def test_tls_refuses_a_certificate_without_its_key() -> None:
    """One of the two alone is a mistake."""
    with pytest.raises(InvalidInput, match="both or neither"):
        Tls(certificate=b"PEM")
