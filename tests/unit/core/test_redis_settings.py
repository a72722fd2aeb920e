"""How Redis is described in the environment."""

from pathlib import Path
from typing import Any

import pytest
from loraland_core import redis_settings
from loraland_core.errors import InvalidInput
from loraland_core.redis_settings import Login, RedisSettings, Tls, Topology

SERVER, SENTINEL, CLUSTER = Topology.SERVER, Topology.SENTINEL, Topology.CLUSTER


def read(url: str, **settings: str) -> RedisSettings:
    """``settings`` without their common prefix."""
    named = {f"LORALAND_REDIS_{name}": value for name, value in settings.items()}
    return redis_settings.read({"LORALAND_REDIS_URL": url} | named)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://redis", RedisSettings(SERVER, (("redis", 6379),))),
        ("redis://10.0.0.7:7000/3", RedisSettings(SERVER, (("10.0.0.7", 7000),), database=3)),
        ("redis://[::1]:7000", RedisSettings(SERVER, (("::1", 7000),))),
        ("rediss://redis", RedisSettings(SERVER, (("redis", 6379),), tls=Tls())),
        (
            "redis+sentinel://a:1,b,[::1]:3/land/2",
            RedisSettings(
                SENTINEL, (("a", 1), ("b", 26379), ("::1", 3)), service="land", database=2
            ),
        ),
        (
            "rediss+sentinel://a/land",
            RedisSettings(SENTINEL, (("a", 26379),), service="land", tls=Tls()),
        ),
        ("redis+cluster://a:1,b", RedisSettings(CLUSTER, (("a", 1), ("b", 6379)))),
        ("rediss+cluster://a/0", RedisSettings(CLUSTER, (("a", 6379),), tls=Tls())),
    ],
    ids=["plain", "port-and-number", "ipv6", "tls", "sentinel", "sentinel-tls", "cluster", "c-tls"],
)
def test_url_says_where_redis_is(url: str, expected: RedisSettings) -> None:
    """One server, Sentinels or a Cluster, each with TLS or without, by the scheme."""
    assert read(url) == expected


def test_login_of_the_url_is_decoded() -> None:
    """Whatever a password holds can be said, percent-encoded."""
    found = read("redis+sentinel://us%40er:p%2F%2C%40ss@a,b/land")

    assert found.login == found.registry_login == Login("us@er", "p/,@ss")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (Login("u", "p"), Login("u", "p"), Login())),
        ({"PASSWORD": "x"}, (Login("u", "x"), Login("u", "x"), Login())),
        ({"USER": "v", "PASSWORD": "x"}, (Login("v", "x"), Login("v", "x"), Login())),
        ({"REGISTRY_USER": "r"}, (Login("u", "p"), Login("r", "p"), Login())),
        (
            {"REGISTRY_USER": "r", "REGISTRY_PASSWORD": "y"},
            (Login("u", "p"), Login("r", "y"), Login()),
        ),
        (
            {"SENTINEL_USER": "s", "SENTINEL_PASSWORD": "z"},
            (Login("u", "p"), Login("u", "p"), Login("s", "z")),
        ),
    ],
    ids=["url", "password", "user", "registry-user", "registry-password", "sentinel"],
)
def test_secrets_may_come_beside_the_url(
    settings: dict[str, str], expected: tuple[Login, ...]
) -> None:
    """A Secret's keys go before the URL; the registry's user is the same one where none is named."""
    found = read("redis://u:p@redis", **settings)

    assert (found.login, found.registry_login, found.sentinel_login) == expected


def test_files_of_tls() -> None:
    """An authority of one's own, and a certificate to show."""
    found = read("rediss://redis", CA_FILE="ca.pem", CERT_FILE="c.pem", KEY_FILE="k.pem")

    assert found.tls == Tls("ca.pem", "c.pem", "k.pem")


@pytest.mark.parametrize(
    ("url", "settings", "field", "words"),
    [
        ("", {}, "URL", "must be set"),
        ("http://redis", {}, "URL", "expected redis://"),
        ("redis", {}, "URL", "expected redis://"),
        ("redis://", {}, "URL", "expected redis://"),
        ("redis://u:secret/word@redis", {}, "URL", "expected redis://"),
        ("redis://redis:secret", {}, "URL", "expected redis://"),
        ("redis://redis/first", {}, "URL", "expected redis://"),
        ("redis://redis/0?ssl=secret", {}, "URL", "takes no"),
        ("redis://a,b", {}, "URL", "several hosts"),
        ("redis+sentinel://a,b", {}, "URL", "names no service"),
        ("redis+cluster://a/1", {}, "URL", "no databases"),
        ("redis://a", {"CA_FILE": "ca.pem"}, "URL", "rediss"),
        ("rediss://a", {"CERT_FILE": "c.pem"}, "CERT_FILE", "KEY_FILE"),
        ("redis://a", {"TIMEOUT_S": "soon"}, "TIMEOUT_S", "'soon'"),
        ("redis://a", {"TIMEOUT_S": "0.5"}, "TIMEOUT_S", "from 2 to 60"),
        ("redis://a", {"TIMEOUT_S": "nan"}, "TIMEOUT_S", "from 2 to 60"),
    ],
    ids=[
        *("unset", "scheme", "no-scheme", "no-host", "unencoded", "port", "number", "query"),
        *("hosts", "no-service", "cluster-number", "ca-without-tls", "half-a-pair"),
        *("no-number", "too-short", "nan"),
    ],
)
def test_senseless_setting_is_named(
    url: str, settings: dict[str, Any], field: str, words: str
) -> None:
    """The message names the variable and what to do, and nothing of a password."""
    with pytest.raises(InvalidInput, match=f"LORALAND_REDIS_{field}.*{words}") as caught:
        read(url, **settings)

    assert "secret" not in str(caught.value)


def test_nothing_that_is_printed_has_a_password() -> None:
    """Settings end up in logs and tracebacks."""
    found = read("redis://u:secret@redis", SENTINEL_PASSWORD="secret", REGISTRY_PASSWORD="secret")

    assert "secret" not in f"{found} {found!r}"
    assert str(read("redis+sentinel://a:1,b/land")) == "redis+sentinel a:1,b:26379 land"


def test_every_setting_is_documented() -> None:
    """The page for whoever runs it knows each variable."""
    page = (Path(__file__).parents[3] / "docs/operations.md").read_text()

    assert [name for name in redis_settings.SETTINGS if f"`{name}`" not in page] == []
