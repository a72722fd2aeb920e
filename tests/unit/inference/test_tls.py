"""The serving certificate: what is refused at the start, what stays in force later."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from authority import Authority
from loraland_core.errors import InvalidInput
from loraland_inference.access import TlsFiles
from loraland_inference.tls import Certificate


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def damage(files: TlsFiles, kind: str, authority: Authority) -> Path:
    """Make one of the files wrong; return it."""
    match kind:
        case "no-certificate":
            files.certificate.unlink()
            return files.certificate
        case "certificate":
            files.certificate.write_text("nonsense")
            return files.certificate
        case "key":
            files.key.write_text("nonsense")
            return files.key
        case "key-of-another":
            _, other = authority.issue(files.key.parent / "other")
            other.rename(files.key)
            return files.key
        case "expired":
            authority.issue(files.key.parent, lasts=timedelta(hours=-1))
            return files.certificate
        case _:
            assert files.client_ca is not None
            files.client_ca.write_text("nonsense")
            return files.client_ca


KINDS = ["no-certificate", "certificate", "key", "key-of-another", "expired", "client-ca"]


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> TlsFiles:
    certificate, key = authority.issue(tmp_path)
    client_ca = tmp_path / "ca.crt"
    client_ca.write_bytes(authority.pem)
    return TlsFiles(certificate, key, client_ca)


@pytest.mark.parametrize("kind", KINDS)
def test_server_does_not_start_with_files_that_are_wrong(
    files: TlsFiles, authority: Authority, kind: str
) -> None:
    """The sentence names the file."""
    wrong = damage(files, kind, authority)

    with pytest.raises(InvalidInput) as caught:
        Certificate(files)

    assert caught.value.field == str(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_pair_before_stays_in_force_when_a_new_one_is_wrong(
    files: TlsFiles, authority: Authority, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and a good pair ends it."""
    told: list[bool] = []
    certificate = Certificate(files, told.append)
    wrong = damage(files, kind, authority)
    expires_at = certificate.expires_at
    certificate.refresh()
    certificate.refresh()
    kept = certificate.expires_at
    files.client_ca.write_bytes(authority.pem)  # type: ignore[union-attr]
    authority.issue(files.key.parent, lasts=timedelta(days=3))
    certificate.refresh()

    assert (kept, told) == (expires_at, [True, False, True])
    assert str(wrong) in caplog.text
    assert certificate.expires_at > datetime.now(UTC) + timedelta(days=2)


def test_only_a_changed_pair_is_handed_to_grpc(files: TlsFiles, authority: Authority) -> None:
    """None means to go on with what the last handshake used."""
    certificate = Certificate(files)
    certificate.credentials()
    unchanged = certificate._next()
    authority.issue(files.key.parent)
    changed = certificate._next()

    assert (unchanged, changed is None, certificate._next()) == (None, False, None)


def test_key_is_not_quoted(files: TlsFiles) -> None:
    """A key that cannot be read is nobody's business."""
    text = files.key.read_text()
    files.key.write_text(text.replace("PRIVATE KEY", "PUBLIC KEY"))

    with pytest.raises(InvalidInput) as caught:
        Certificate(files)

    assert text.splitlines()[1] not in str(caught.value)
