"""The rights of Redis users, as lines for an ACL file. No I/O but ``python -m`` writing the file.

Redis 6.2 grants a user its keys for reading and writing alike, so reading the registry and writing
one's own keys are two users: who may read ``adapters`` may run no command that writes, and who may
write has no key of the registry. A hostile replica with both passwords can spoil heartbeats, leases
and use counts, and never which adapter a name means or who may use it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

OPERATOR, REPLICA, REGISTRY = "operator", "replica", "registry"
PLACEHOLDER = "REPLACE"

# What a client needs before its first command; a Cluster's client asks for slots and commands.
_CONNECT = "+auth +hello +ping +client|setname +select +command +cluster|slots"
_REGISTRY_KEYS = "~ll:v1:{*}:adapters ~ll:v1:{*}:epoch ~ll:v1:{*}:changes"
_REPLICA_KEYS = (
    "~ll:v1:{*}:beat:* ~ll:v1:{*}:residency:* ~ll:v1:{*}:replicas ~ll:v1:{*}:use ~ll:v1:lease:*"
)
RULES: Mapping[str, str] = {
    # Publishes, and reads what replicas say.
    OPERATOR: f"~ll:v1:* -@all +@read +@write +@transaction -@dangerous {_CONNECT}",
    # A replica's own keys. The Lua scripts of leases and uses run under the same rights.
    REPLICA: (
        f"{_REPLICA_KEYS} -@all {_CONNECT} +get +mget +set +del +expire +pexpire +eval"
        " +zadd +zcard +zrem +zscore +zrevrange +zremrangebyscore +zremrangebyrank"
    ),
    # A replica's reading of the registry.
    REGISTRY: f"{_REGISTRY_KEYS} -@all {_CONNECT} +get +hmget +hscan +xread +xrevrange",
}


def build_file(passwords: Mapping[str, str]) -> str:
    """Return the lines of an ACL file; nobody gets in without a name."""
    lines = [f"user {user} on >{passwords[user]} {rules}\n" for user, rules in RULES.items()]
    return "user default off\n" + "".join(lines)


def build_template() -> str:
    """Return the file that the chart ships: everything but the passwords.

    Redis takes no comments in such a file; docs/operations.md explains it.
    """
    return build_file(dict.fromkeys(RULES, PLACEHOLDER))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(build_template())
