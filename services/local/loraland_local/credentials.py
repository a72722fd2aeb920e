"""The passwords and tokens of one stack: made once, kept in its directory for its owner alone."""

import dataclasses
import hashlib
import json
import secrets

from loraland_local.layout import Layout, write_atomically


@dataclasses.dataclass(frozen=True)
class Credentials:
    api_token: str
    inference_token: str
    store_access_key: str
    store_secret_key: str
    operator_password: str
    replica_password: str

    @property
    def inference_token_sha256(self) -> str:
        return hashlib.sha256(self.inference_token.encode()).hexdigest()


def ensure(layout: Layout) -> Credentials:
    """Return the stack's secrets, made on its first start."""
    try:
        known = json.loads(layout.secrets.read_text())
    except (OSError, ValueError):
        known = {}
    fields = [field.name for field in dataclasses.fields(Credentials)]
    found = Credentials(**{name: known.get(name) or secrets.token_urlsafe(24) for name in fields})
    write_atomically(layout.secrets, json.dumps(dataclasses.asdict(found)), mode=0o600)
    write_atomically(layout.token, found.inference_token + "\n", mode=0o600)
    write_atomically(layout.api_token, found.api_token + "\n", mode=0o600)
    # As a kube-apiserver's --token-auth-file: token, user, uid, groups.
    line = f'{found.api_token},laptop-admin,laptop-admin,"system:masters"\n'
    write_atomically(layout.api_tokens, line, mode=0o600)
    return found
