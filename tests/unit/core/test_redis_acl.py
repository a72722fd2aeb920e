"""The users that the chart ships, and what they may."""

from pathlib import Path

import pytest
from loraland_core import keys, redis_acl

FILE = Path(__file__).parents[3] / "helm/loraland/files/redis-acl/users.acl"


def test_file_is_what_the_code_says() -> None:
    """The rules have one source; ``make gen`` writes the file."""
    assert redis_acl.build_template() == FILE.read_text()


def test_passwords_are_in_their_places() -> None:
    """Each user has its own, and nobody gets in without a name."""
    lines = redis_acl.build_file({u: f"p-{u}" for u in redis_acl.RULES}).splitlines()

    assert lines[0] == "user default off"
    assert [line.split()[:4] for line in lines[1:]] == [
        ["user", u, "on", f">p-{u}"] for u in ("operator", "replica", "registry")
    ]


@pytest.mark.parametrize("user", [redis_acl.REPLICA, redis_acl.REGISTRY])
def test_users_of_replicas_start_from_nothing(user: str) -> None:
    """What they may is listed; a command that a later Redis brings is refused."""
    rules = redis_acl.RULES[user].split()

    assert "-@all" in rules
    assert not [rule for rule in rules if rule.startswith(("+@", "~*", "allkeys"))]


def test_no_user_has_keys_of_both_kinds() -> None:
    """Who writes heartbeats has no key of the registry."""
    registry = {key("{*}").replace("{{*}}", "{*}") for key in (keys.adapters, keys.epoch)}

    assert not registry & {rule[1:] for rule in redis_acl.RULES[redis_acl.REPLICA].split()}
    assert registry <= {rule[1:] for rule in redis_acl.RULES[redis_acl.REGISTRY].split()}
