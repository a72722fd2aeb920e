"""A real etcd and kube-apiserver, where ``KUBEBUILDER_ASSETS`` names a folder that has them.

Builds their commands and keys; the flags are those of controller-runtime's envtest. The laptop's
controllers and kubelet serve either API. (Not exercised where the binaries are absent.)
"""

import json
from pathlib import Path

from loraland_core.errors import InvalidInput

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"


def find_binaries(assets: str) -> tuple[Path, Path]:
    """Return etcd and kube-apiserver below the folder; raise ``InvalidInput`` without them."""
    etcd, apiserver = Path(assets) / "etcd", Path(assets) / "kube-apiserver"
    missing = [binary.name for binary in (etcd, apiserver) if not binary.exists()]
    if missing:
        raise InvalidInput(
            f"{assets} has no {' and no '.join(missing)}; name envtest's folder, or unset the"
            " variable to use the embedded API",
            field=ASSETS_VARIABLE,
        )
    return etcd, apiserver


def build_etcd_command(
    binary: Path, *, host: str, port: int, peer_port: int, folder: Path
) -> list[str]:
    return [
        str(binary),
        f"--data-dir={folder}",
        f"--listen-client-urls=http://{host}:{port}",
        f"--advertise-client-urls=http://{host}:{port}",
        f"--listen-peer-urls=http://{host}:{peer_port}",
        f"--initial-advertise-peer-urls=http://{host}:{peer_port}",
        f"--initial-cluster=default=http://{host}:{peer_port}",
        "--unsafe-no-fsync=true",
    ]


def build_apiserver_command(
    binary: Path, *, host: str, port: int, etcd_url: str, folder: Path, tokens: Path
) -> list[str]:
    key = folder / "service-account.key"
    return [
        str(binary),
        f"--etcd-servers={etcd_url}",
        f"--bind-address={host}",
        f"--advertise-address={host}",
        f"--secure-port={port}",
        f"--cert-dir={folder}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--service-cluster-ip-range=10.0.0.0/24",
        # The laptop's controllers make service accounts; pods get tokens from the kubelet.
        "--disable-admission-plugins=ServiceAccount",
        f"--service-account-issuer=https://{host}:{port}",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
    ]


def write_service_account_key(folder: Path) -> None:
    """Make the key that signs service accounts' tokens, once."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 (rarely needed)
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    path = folder / "service-account.key"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def build_kubeconfig(*, url: str, token: str, certificate_authority: Path) -> str:
    """Return a kubeconfig, as JSON (which is YAML); its CA is the server's own certificate."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "loraland",
        "clusters": [
            {
                "name": "loraland",
                "cluster": {"server": url, "certificate-authority": str(certificate_authority)},
            }
        ],
        "users": [{"name": "loraland", "user": {"token": token}}],
        "contexts": [
            {
                "name": "loraland",
                "context": {"cluster": "loraland", "user": "loraland", "namespace": "default"},
            }
        ],
    }
    return json.dumps(document, indent=2) + "\n"
