"""The gate by TLS: callers by certificate, and certificates that change while it serves."""

from pathlib import Path

import gated_server
import grpc
import pytest
from authority import Authority
from gated_server import build_request, call
from loraland_client.channels import Tls, open_channel
from loraland_inference.access import TlsFiles
from loraland_inference.tls import Certificate

GENERATE = "/loraland.inference.v1.Inference/Generate"
APP = "spiffe://land/ns/a/sa/app"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.json"
    certificates = [
        {"uri": APP, "tenant": "by-uri"},
        {"commonName": "robot", "tenant": "by-name"},
        {"commonName": "clerk", "tenant": "by-name", "roles": ["admin"]},
    ]
    gated_server.write_tokens(
        path, {"token": ("by-token", ["inference"])}, certificates=certificates
    )
    return path


def client_tls(folder: Path, authority: Authority, signer: Authority | None, **names: str) -> Tls:
    """Return what a caller trusts and shows; no signer, no certificate."""
    if signer is None:
        return Tls(ca=authority.pem)
    certificate, key = signer.issue(folder, **names)
    return Tls(ca=authority.pem, certificate=certificate.read_bytes(), key=key.read_bytes())


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        (({"uri": APP}, ""), ("OK", ["by-uri"])),
        (({"common_name": "robot"}, ""), ("OK", ["by-name"])),
        (({"common_name": "robot"}, "token"), ("OK", ["by-token"])),
        (({"common_name": "robot"}, "wrong"), ("UNAUTHENTICATED", [])),
        (({"common_name": "clerk"}, ""), ("PERMISSION_DENIED", [])),
        (({"common_name": "nobody"}, ""), ("UNAUTHENTICATED", [])),
    ],
    ids=["uri", "common-name", "token-first", "wrong-token", "role", "unknown"],
)
async def test_certificate_tells_who_calls(
    tmp_path: Path,
    authority: Authority,
    tokens: Path,
    caller: tuple[dict[str, str], str],
    expected: tuple[str, list[str]],
) -> None:
    """By its URI or its name; a token beside it counts first."""
    names, token = caller
    client_ca = tmp_path / "ca.crt"
    client_ca.write_bytes(authority.pem)
    files = TlsFiles(*authority.issue(tmp_path), client_ca)
    tls = client_tls(tmp_path / "client", authority, authority, **names)
    async with (
        gated_server.serving(tokens, certificate=Certificate(files)) as land,
        open_channel(land.address, tls) as channel,
    ):
        found = await call(channel, GENERATE, build_request(GENERATE), token)

    assert (found, land.tenants) == expected


@pytest.mark.parametrize("has_certificate", [False, True], ids=["none", "of-another-authority"])
async def test_nobody_connects_without_a_certificate_of_the_authority(
    tmp_path: Path, authority: Authority, tokens: Path, has_certificate: bool
) -> None:
    """Not even with a token that is good."""
    client_ca = tmp_path / "ca.crt"
    client_ca.write_bytes(authority.pem)
    files = TlsFiles(*authority.issue(tmp_path), client_ca)
    stranger = Authority("stranger") if has_certificate else None
    tls = client_tls(tmp_path / "client", authority, stranger, common_name="robot")
    async with (
        gated_server.serving(tokens, certificate=Certificate(files)) as land,
        open_channel(land.address, tls) as channel,
    ):
        found = await call(channel, GENERATE, build_request(GENERATE), "token", timeout=10)

    assert (found, land.tenants) == ("UNAVAILABLE", [])


async def ask(address: str, ca: bytes) -> str:
    """Make a call over a new connection that trusts one authority."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    credentials = grpc.ssl_channel_credentials(ca)
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        return await call(channel, GENERATE, build_request(GENERATE), "token", timeout=20)


async def test_new_connections_get_the_newest_certificate(
    tmp_path: Path, authority: Authority, tokens: Path
) -> None:
    """Without a restart, and while a broken one lies there, the one before it."""
    successor = Authority("successor")
    files = TlsFiles(*authority.issue(tmp_path))
    async with gated_server.serving(tokens, certificate=Certificate(files)) as land:
        first = await ask(land.address, authority.pem)
        files.certificate.write_text("half of a certifi")
        broken = await ask(land.address, authority.pem)
        successor.issue(tmp_path)
        renewed = await ask(land.address, successor.pem)

    assert (first, broken, renewed) == ("OK", "OK", "OK")


async def test_clear_text_is_not_answered_by_tls(
    tmp_path: Path, authority: Authority, tokens: Path
) -> None:
    """A caller who forgot its settings sends no token in clear text that is taken."""
    files = TlsFiles(*authority.issue(tmp_path))
    async with (
        gated_server.serving(tokens, certificate=Certificate(files)) as land,
        open_channel(land.address) as channel,
    ):
        found = await call(channel, GENERATE, build_request(GENERATE), "token", timeout=10)

    assert (found, land.tenants) == ("UNAVAILABLE", [])
